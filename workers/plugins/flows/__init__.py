"""How `flow_stats` gives its flow records to a collector."""
