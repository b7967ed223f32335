"""What a run tells of itself: snapshot, metrics, report, status socket."""
