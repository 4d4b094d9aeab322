"""The notifier: matches events with the listeners that asked for them, and delivers them durably by HTTP."""
