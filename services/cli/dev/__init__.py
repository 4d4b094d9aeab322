"""The local stack: a broker, a database and every process under one supervisor."""
