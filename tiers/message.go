package tiers

import (
	"time"

	"github.com/tributary-io/tributary/limiter"
)

// A Report goes from child to parent and is answered by an Ack. It says
// everything that changed since what the parent has on its disk, so a lost
// one is covered by the next, and a repeated one changes nothing.
type Report struct {
	Child    Place
	World    uint64        // 0: not known yet
	Rules    uint64        // version of the child's rules; 0: none from the root yet
	Hash     uint64        // of the child's rules
	Parts    *RulesHeld    // what it has of the parent's that it collects; nil: it collects none
	Newest   uint64        // the newest version of the rules that a place below follows
	Session  uint64        // the child's nonce
	Number   uint64        // its number, given by the parent; 0 is a hello that asks for one
	Highest  uint64        // the highest session number on the child's disk
	Previous uint64        // the session that wrote the disk before; 0: the disk was new
	Witness  Witness       // the newest session of the root that the child's disk knows of, if the root is its parent
	Longest  time.Duration // the longest lease by which something may still be lent to the child, or was by it
	Folded   []uint64      // the Folded of the child's Meta, in a hello and where a count has Folded or Kept
	Sequence uint64        // of this session's reports; an older one that comes late is dropped

	// Counts holds every key that changed in (From, To], marks of this
	// child's changes.
	From, To uint64
	Counts   []Count
	// Rest is the parent's session that was told the rest of the changes in
	// (From, To], and has it; 0: all of them are in Counts.
	Rest uint64

	Lines []LineReport
	// Watch are keys whose totals above the child wants to see, of all of which
	// each report names some. The first Fresh of them it has no totals of.
	Watch []Name
	Fresh int

	// Age is how long before the report was built its watermark lies:
	// everything that happened earlier is in it. Negative: not known.
	Age    time.Duration
	Behind int // places below the child that stop its watermark
	// Echo is the parent's clock as the child reckons it: the stamp of the
	// last Ack plus the time since it came. The report was built at or after
	// this instant. It is of the parent's session EchoOf; 0: none came yet.
	Echo   limiter.Time
	EchoOf uint64
	Got    uint64 // sequence of the last report whose Ack came
	Bye    bool   // the session ends in good order after this report
}

// A Witness is what a place's disk knows of the sessions of the root: the
// newest, and its number. It is zero where none is known.
type Witness struct{ Session, Number uint64 }

// Count is one key's entry in a Report or an Ack.
type Count struct {
	Name   Name
	Pairs  []Pair
	Folded Total // what folded sessions counted, of a leaf
	Kept   Total // what forgotten children counted, of an interior place; its pair has it too
	// First asks for what the parent has of the child beside the session: of
	// the sessions above After, and where Upto is not 0, up to that. A count
	// with more pairs than a message holds is told in such parts.
	First       bool
	After, Upto uint64
}

// A LineReport names one line (or asks for one: Line is 0), says what was
// returned of it, in running totals, and what is demanded.
type LineReport struct {
	Name     Name
	Limit    uint64 // limiter.Limit.ID
	Lender   uint64 // the parent's session that opened the line
	Line     uint64
	Returned limiter.Share
	Ended    bool // nothing more is spent from it
	Demand   Demand
	Resets   uint64 // how often the line was reset, as far as the child has heard
}

// Demand is what is asked of a limit below a place.
type Demand struct {
	Now    int64         // offered now, tokens per period of the limit
	Peak   int64         // the decayed peak of Now
	Ask    int64         // tokens that waiting checks lack
	Single int64         // of them, what the largest lacks: it has to come to one place
	Until  time.Duration // how long the last of them waits, from when the report was built
	Weight int64         // of the leaves that demand, together
}

// An Ack answers a Report, once what the report brought is durable.
type Ack struct {
	World    uint64
	Version  uint64        // of the parent's rules
	Hash     uint64        // of the parent's rules
	Rules    *RulesRecord  // the parent's, where the child's are older; where they are others, too, the Ack lends nothing
	Parts    *RulesParts   // instead of Rules, where those have no room
	Session  uint64        // the child's session that is answered
	Sequence uint64        // the report that is answered
	Parent   uint64        // the parent's own session
	Root     uint64        // its number, if the parent is the root, which counts its own
	Number   uint64        // the child's session number; 0: say hello again
	Longest  time.Duration // the longest lease by which something may still be lent to the parent, or was by it
	Acked    uint64        // up to which mark the parent's disk has the child's changes
	Refused  string        // the report was not taken, and why
	Fenced   bool          // a newer session of this place exists
	Full     bool          // the parent's disk is: it took none of the report's counts
	Pause    time.Duration
	Folded   []uint64 // what the child's Meta.Folded should have, in the answer to a hello and where Pairs have Folded or Kept
	Pairs    []Count  // handed back: what this child's other sessions counted
	// MorePairs: not all that is to be handed back had room, and MoreLines: not
	// all lines of the report are answered. What is missing follows when it is
	// asked for again.
	MorePairs, MoreLines bool

	Lines []Grant
	Above []Watermark // the parent and its ancestors, upwards
	Views []Totals
	// Partial: totals that the child watches may have changed and not be in
	// Views, nor in those of answers before. Anew: it has to name all that it
	// watches once more.
	Partial, Anew bool
	Stamp         limiter.Time // the parent's clock when it built this
}

// A Grant is what the lender's ledger says of one line, in running totals.
// Lent is what the child may hold, less what it returned.
type Grant struct {
	Name  Name
	Limit uint64
	Line  uint64 // 0: nothing is lent
	Lent  limiter.Share
	Lease time.Duration // from when the child built the report that is answered
	Keep  Keep
	// Wait is when the lender could have the next token for an ask that it
	// did not meet; 0: not known.
	Wait   time.Duration
	Window int64  // of a quota: the window's begin, Unix seconds
	Resets uint64 // how often the line was reset: a running total
}

// Keep is how much of a line the lender wants the child to keep; what it
// holds beyond that it gives back.
type Keep struct {
	All            bool // no recall
	Capacity, Rate int64
}

// A Watermark says how far a place's totals are complete.
type Watermark struct {
	Place  Place
	Age    time.Duration // negative: not known
	Behind int
}

// Totals are one key's totals at the places of Ack.Above, in their order.
// Unwatched: not all of them are kept up to date, for there are too many keys;
// without any, none is.
type Totals struct {
	Name      Name
	Totals    []Total
	Unwatched bool
}

// A Recall goes from parent to child: it answers the child's last report once
// more, since more could be lent, or what is held beyond Keep is wanted back.
// A child to which that is not the last report whose Ack came takes nothing
// that it brings, and reports anew.
type Recall struct {
	Parent   uint64 // the parent's session
	Session  uint64 // the child's session
	Sequence uint64 // the report that is answered
	Lines    []Grant
}
