"""The plugins that come with ringline."""
