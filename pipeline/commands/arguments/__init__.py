"""The arguments of the commands: their values, examples, and completion by a shell."""
