"""What a board does when nobody sits at it: jobs that outlive the link, a served runner, its own test."""
