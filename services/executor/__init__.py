"""The StepExecutionManager and the workers: executions as a fold, steps as claimed work."""
