package tiers

// This file bounds how large messages are. The network takes messages of so
// many bytes (Config.MaxMessage, Machine.SetMaxMessage), and a larger one
// would never leave: so whatever puts an entry into a message asks first
// whether it has room, and what has none follows in the next.
//
// The sizes are upper bounds of what package wire writes, each figure at its
// longest: some room stays unused, and no message is encoded to be measured.

// Bounds of Config.MaxMessage.
const (
	// DefaultMaxMessage is what NATS takes unless it is configured.
	DefaultMaxMessage = 1 << 20
	// LeastMessage is the least with which a place works: every single entry of
	// a message fits, beside all that goes before it. See [Machine.NeedsMessage].
	LeastMessage = 32 << 10
)

// What a field takes, at most: its tag has two bytes or one, a varint ten.
const (
	figureSize  = 2 + 10
	numberSize  = 2 + 8 // of fixed length
	truthSize   = 2 + 1
	prefixSize  = 2 + 4 // before the bytes of a text or of a message
	totalSize   = prefixSize + 2*figureSize
	shareSize   = prefixSize + 3*figureSize
	pairSize    = prefixSize + numberSize + 2*figureSize
	witnessSize = prefixSize + numberSize + figureSize
)

func textSize(s string) int { return prefixSize + len(s) }

func nameSize(n Name) int { return prefixSize + textSize(n.Namespace) + textSize(n.Key) }

// listSize is of numbers in a row.
func listSize(list []uint64) int { return prefixSize + 8*len(list) }

// countSize is of a count with so many pairs.
func countSize(n Name, pairs int) int {
	return prefixSize + nameSize(n) + pairs*pairSize + truthSize + 2*totalSize + 2*numberSize
}

func lineSize(n Name) int {
	return prefixSize + nameSize(n) + 2*numberSize + figureSize + shareSize + truthSize + 7*figureSize
}

func grantSize(n Name) int {
	return prefixSize + nameSize(n) + numberSize + figureSize + shareSize + totalSize + 5*figureSize
}

func watermarkSize(p Place) int { return prefixSize + textSize(string(p)) + 2*figureSize }

// totalsSize is of a key's totals at so many places.
func totalsSize(n Name, places int) int {
	return prefixSize + nameSize(n) + places*totalSize + truthSize
}

// size is what rules take as a whole.
func (r *RulesRecord) size() int {
	n := prefixSize + figureSize + prefixSize + r.Rules.Size()
	for i := range r.Holds {
		n += prefixSize + textSize(r.Holds[i].Namespace) + numberSize + figureSize
	}
	return n
}

// size is what is said of rules in parts, without the pieces.
func (p *RulesParts) size() int {
	return prefixSize + numberSize + textSize(p.Lease) + textSize(p.FoldAfter)
}

func (p *RulesPiece) size() int {
	return prefixSize + 3*figureSize + numberSize + prefixSize + len(p.Data)
}

func (h *RulesHeld) size() int {
	if h == nil {
		return 0
	}
	return prefixSize + listSize(h.Parts) + 2*figureSize + numberSize
}

// size is what a report takes without its lists of entries.
func (r *Report) size() int {
	return 16*figureSize + 5*numberSize + truthSize + witnessSize + textSize(string(r.Child)) + listSize(r.Folded) + r.Parts.size()
}

// Size is how many bytes a report takes when it is encoded, at most.
func (r *Report) Size() int {
	n := r.size()
	for i := range r.Counts {
		n += countSize(r.Counts[i].Name, len(r.Counts[i].Pairs))
	}
	for i := range r.Lines {
		n += lineSize(r.Lines[i].Name)
	}
	for _, w := range r.Watch {
		n += nameSize(w)
	}
	return n
}

// size is what an answer takes without its rules and its lists of entries.
func (a *Ack) size() int {
	return 10*figureSize + 4*numberSize + 6*truthSize + textSize(a.Refused) + listSize(a.Folded)
}

// Size is how many bytes an answer takes when it is encoded, at most.
func (a *Ack) Size() int {
	n := a.size()
	if a.Rules != nil && a.Rules.Rules != nil {
		n += a.Rules.size()
	}
	if a.Parts != nil {
		n += a.Parts.size()
		for i := range a.Parts.Pieces {
			n += a.Parts.Pieces[i].size()
		}
	}
	for i := range a.Pairs {
		n += countSize(a.Pairs[i].Name, len(a.Pairs[i].Pairs))
	}
	for i := range a.Lines {
		n += grantSize(a.Lines[i].Name)
	}
	for _, w := range a.Above {
		n += watermarkSize(w.Place)
	}
	for i := range a.Views {
		n += totalsSize(a.Views[i].Name, len(a.Views[i].Totals))
	}
	return n
}

// size is what a Recall takes without its lines.
func (r *Recall) size() int { return 2*figureSize + 2*numberSize }

// Size is how many bytes a Recall takes when it is encoded, at most.
func (r *Recall) Size() int {
	n := r.size()
	for i := range r.Lines {
		n += grantSize(r.Lines[i].Name)
	}
	return n
}

// A room is how many bytes are left in a message that is being built.
type room int

// take takes n bytes of it, unless less than keep would be left then.
func (r *room) take(n int, keep room) bool {
	if *r-room(n) < keep {
		return false
	}
	*r -= room(n)
	return true
}

// pairs is how many pairs of a count fit into it beside keep.
func (r room) pairs(n Name, keep room) int { return max(0, (int(r-keep)-countSize(n, 0))/pairSize) }

// SetMaxMessage says how many bytes a message may have from now on; 0:
// [DefaultMaxMessage]. What is under way already is not built anew: if it was
// not sent, Failed has it be.
func (m *Machine) SetMaxMessage(bytes int) {
	if bytes <= 0 {
		bytes = DefaultMaxMessage
	}
	m.cfg.MaxMessage = bytes
}

// NeedsMessage is how large a message must be allowed for all that this place
// has to say: [LeastMessage], and room for the longest list of what was folded.
func (m *Machine) NeedsMessage() int {
	longest := len(m.meta.Folded)
	for _, c := range m.lower.order {
		longest = max(longest, len(c.record.Folded))
	}
	return LeastMessage + 8*longest
}

// roomFor is what is left of a message that takes so many bytes already.
func (m *Machine) roomFor(size int) room { return room(m.cfg.MaxMessage - size) }

// answerRoom is what is left of an answer when what every answer says is taken
// off: how far the totals here and above are complete.
func (m *Machine) answerRoom(a *Ack) room {
	n := a.size() + watermarkSize(m.cfg.Place)
	for _, u := range m.upper.wishes.settled.marks {
		n += watermarkSize(u.place)
	}
	return m.roomFor(n)
}
