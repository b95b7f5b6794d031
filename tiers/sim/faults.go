package sim

import (
	"fmt"
	"slices"
	"strings"
)

// A Fault is something that goes wrong in a world.
type Fault int

// The faults.
const (
	Loss        Fault = iota // a message is lost
	Duplication              // it comes twice
	Delay                    // messages take up to 400 ms instead of up to 5
	Reordering               // one is held up, and others overtake it
	Partition                // a link is cut, both ways
	OneWay                   // or one way
	Crash                    // a process dies, between any two effects of a step
	Unsynced                 // and commits with it that were not synced; of others nobody was told
	Stop                     // a process ends in good order, and starts again
	SlowDisk                 // syncs take up to 2 s
	FullDisk                 // nothing should be written
	BusyDisk                 // a step is refused
	FailingDisk              // a sync fails
	LostDisk                 // a disk is lost
	OldDisk                  // a disk is set back to an old copy
	RootDisk                 // the same, of the root
	Twin                     // a second process runs on a copy of a disk
	Drift                    // clocks run wrong, up to 1 % apart
	WallClock                // the wall clock jumps
	Suspend                  // a machine stands still for a while
	Rules                    // the rules change
	Join                     // a place joins
	Leave                    // a place leaves, and is forgotten
	Retry                    // a request comes twice
	NewRoot                  // the root's disk is lost: a new world, which an operator joins to the old one
	numFaults
)

var faultNames = [numFaults]string{
	"loss", "duplication", "delay", "reordering", "partition", "one-way", "crash", "unsynced", "stop", "slow-disk", "full-disk",
	"busy-disk", "failing-disk", "lost-disk", "old-disk", "root-disk", "twin", "drift", "wall-clock", "suspend", "rules", "join",
	"leave", "retry", "new-root",
}

func (f Fault) String() string { return faultNames[f] }

// FaultSet is a set of faults.
type FaultSet uint64

// AllFaults are all.
const AllFaults FaultSet = 1<<numFaults - 1

// Has says that f is in the set.
func (s FaultSet) Has(f Fault) bool { return s>>f&1 != 0 }

// Without is the set without f.
func (s FaultSet) Without(f Fault) FaultSet { return s &^ (1 << f) }

// String names the faults as ParseFaults reads them.
func (s FaultSet) String() string {
	switch s {
	case 0:
		return "none"
	case AllFaults:
		return "all"
	}
	var names []string
	for f := range numFaults {
		if s.Has(f) {
			names = append(names, f.String())
		}
	}
	return strings.Join(names, ",")
}

// ParseFaults reads "all", "none" or names with commas between; a name with
// "-" before it is taken away, from all if it stands first.
func ParseFaults(text string) (set FaultSet, err error) {
	for i, name := range strings.Split(text, ",") {
		name, less := strings.CutPrefix(strings.TrimSpace(name), "-")
		switch name {
		case "all":
			set = AllFaults
			continue
		case "none", "":
			set = 0
			continue
		}
		f := slices.Index(faultNames[:], name)
		if f < 0 {
			return 0, fmt.Errorf("%q is no fault: name some of all, none, %s", name, strings.Join(faultNames[:], ", "))
		}
		switch {
		case less && i == 0:
			set = AllFaults.Without(Fault(f))
		case less:
			set = set.Without(Fault(f))
		default:
			set |= 1 << f
		}
	}
	return set, nil
}

// An Exception is a loss that DESIGN.md allows, since no one is left who
// knows. The laws are held to exactly those.
type Exception int

// The exceptions.
const (
	LostCounts    Exception = iota // votes that only a lost or old disk held
	LostTogether                   // a place and its parent lost their disks: the grandparent shows more, and an owner takes itself for new
	TwoOwners                      // two processes owned a limit: what is checked by its bucket is not, from then on
	OldOwner                       // a budget's or quota's owner was set back to an old disk
	LostRoot                       // the root's disk was lost: a new world, until it is joined
	FoldedUnheard                  // a session was folded of which the parent had not heard all
	numExceptions
)

var exceptionNames = [numExceptions]string{"lost-counts", "lost-together", "two-owners", "old-owner", "lost-root", "folded-unheard"}

func (e Exception) String() string { return exceptionNames[e] }
