package main

// ServeCmd runs places.
type ServeCmd struct {
	Place []string `help:"Place to run, such as eu.de.berlin; repeat it to run several in this process. Without any: a root and the places down to one city." placeholder:"PLACE"`
}

// Run runs places until it is told to stop.
func (c *ServeCmd) Run(app *App) error { return nil }
