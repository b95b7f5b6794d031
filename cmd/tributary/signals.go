package main

import (
	"os"
	"os/signal"
	"syscall"
)

// What signals mean. SIGINT and SIGTERM end App.Context, and so each command in good order; a second one ends the
// process. A terminal that is closed sends SIGHUP, and a reader that goes away SIGPIPE: both end most commands at once, as
// users of a shell expect. A command that would leave something behind says otherwise.

// endInOrder has a hangup end the command in good order, as an interrupt does, and a reader that goes away end nothing:
// what is written to it then is an error. For commands that have files and processes of their own to remove.
func (a *App) endInOrder() (stop func()) {
	signal.Ignore(syscall.SIGPIPE)
	if signal.Ignored(syscall.SIGHUP) { // as nohup wants it
		return func() {}
	}
	ctx, cancel := signal.NotifyContext(a.Context, syscall.SIGHUP)
	a.Context = ctx
	return cancel
}

// outlive has neither a terminal nor a reader of what is printed end the process when it goes away: hangups are told of.
func (a *App) outlive(hangups chan<- os.Signal) {
	signal.Ignore(syscall.SIGPIPE)
	signal.Notify(hangups, syscall.SIGHUP)
}
