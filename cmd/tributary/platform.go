package main

// lacks says what a place that runs on an operating system does without.
func lacks(system string) []string {
	switch system {
	case "linux", "darwin":
		return nil
	case "windows":
		return []string{"Windows cannot be told to make a new or renamed file's name durable: after a loss of power a store may be as it was a " +
			"moment before, or be refused as damaged; what a process that ends had acknowledged is there"}
	}
	return []string{"on " + system + " the clock may stand still while the machine sleeps: do not let it, since leases seem to last longer then"}
}
