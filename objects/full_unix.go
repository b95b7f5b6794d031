//go:build !windows

package objects

import "syscall"

// fullErrors are what the system says of a disk without room.
var fullErrors = []error{syscall.ENOSPC, syscall.EDQUOT}
