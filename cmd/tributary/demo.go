package main

// DemoCmd runs a world of cities in one process.
type DemoCmd struct{}

// Run runs the demo.
func (c *DemoCmd) Run(app *App) error { return nil }
