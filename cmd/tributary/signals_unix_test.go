//go:build !windows

package main

import "syscall"

const sleepSignal, wakeSignal = syscall.SIGSTOP, syscall.SIGCONT
