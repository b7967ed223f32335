"""What a person sees in a terminal: live table, summary, progress bar."""
