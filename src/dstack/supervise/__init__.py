"""Who looks after runs: the lease, the step, the attached loop and the background supervisor."""
