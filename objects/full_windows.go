package objects

import "golang.org/x/sys/windows"

// fullErrors are what the system says of a disk without room.
var fullErrors = []error{windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL, windows.ERROR_DISK_QUOTA_EXCEEDED}
