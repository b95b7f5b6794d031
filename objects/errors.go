package objects

import (
	"errors"
	"fmt"
)

// Errors that callers branch on, with errors.Is. Each comes wrapped with what it was about.
var (
	// ErrClosed is returned by everything that is called after Close.
	ErrClosed = errors.New("objects: the store is closed")

	// ErrFailed is returned by every operation, reads as well, once the store has failed: a commit or a sync went
	// wrong, so what is in memory may never have reached the disk. It wraps the cause. The store stays failed; close
	// it and open the folder again.
	ErrFailed = errors.New("objects: the store has failed; close it and open it again")

	// ErrFull refuses an operation that stores something while the disk has less than Options.MinFreeBytes of room.
	// Reads and deletes go on, and so does everything once there is room again.
	ErrFull = errors.New("objects: the disk is full")

	// ErrOverloaded refuses an operation, before it runs, because MaxPending operations (or MaxPendingBytes of
	// writes) wait for the disk already. Try again later.
	ErrOverloaded = errors.New("objects: too many operations wait for the disk")

	// ErrCycle refuses a call, made by an operation with its transaction's context, that would wait for itself: the
	// object runs an operation that waits, directly or through others, for one that waits for this call. Its text shows
	// the ring. The operations around it go on, and so may the caller's.
	ErrCycle = errors.New("objects: the call would wait for itself")

	// ErrStuck refuses an operation on an object that has run another one for Options.StuckAfter and does not come to
	// its end. If it does after all, the object can be used again.
	ErrStuck = errors.New("objects: the object is stuck in an operation that does not return")

	// ErrInvalid is wrapped by the errors about names, keys, values and sizes that are out of range.
	ErrInvalid = errors.New("objects: invalid argument")

	// ErrPanicked is wrapped by the error of an operation that panicked; its text ends with the stack.
	ErrPanicked = errors.New("objects: the operation panicked")

	// ErrInUse is returned by Open for a folder that is open already, in this process or in another one.
	ErrInUse = errors.New("objects: the folder is in use")

	// ErrFormat is returned by Open for a folder whose format this program does not know.
	ErrFormat = errors.New("objects: unknown format")

	// ErrCorrupt is wrapped by the errors about files that do not hold what was written into them, from Open, from
	// reads, and from Verify. What they held is in no answer. Restore a backup.
	ErrCorrupt = errors.New("objects: the files are damaged")

	// ErrNoStore is returned by what works on a store that is there, for a folder that holds none.
	ErrNoStore = errors.New("objects: the folder holds no store")
)

// errTxDone reports the use of a transaction outside the operation it was made for.
var errTxDone = errors.New("objects: the transaction was used after its operation returned")

// refusal is an operation's clean no: nothing is written, and the state in memory stays.
type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// Refuse marks err as a clean refusal: the operation promises that it left the object's state in memory as it was, so
// that the state is kept. The caller of Do or Submit receives err itself. Whatever the operation had put is dropped,
// as with every error. Refuse(nil) is nil.
func Refuse(err error) error {
	if err == nil {
		return nil
	}
	return &refusal{err}
}

func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
