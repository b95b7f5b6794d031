package tiers

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"

	"github.com/tributary-io/tributary/limiter"
)

// This file lets rules flow that are larger than what an answer has room for.
//
// Rules have parts (limiter.Parts), and what a part says has an ID, which is
// its hash; so has the whole, which is made of those. An answer to a child that
// follows other rules, and in which they have no room as a whole, names the
// whole's ID. The child then says with each report which parts it has, by their
// IDs, and the parent answers with some that are others there, cut into pieces
// that have room. The child collects them beside the rules that it follows, and
// follows the collected once they have the ID that the last answer named.
//
// The parent remembers nothing of this: so messages may be lost, come twice or
// late, either side may start again, and the rules may change meanwhile, and the
// child is always sent what it lacks of the rules as they are then. Whatever it
// has collected, it follows nothing that its parent does not.
//
// The holds that the rules shortened (hold.go) are in the part of their
// namespace, and so are there when the rules are.

// RulesParts is what an Ack says of rules that have no room in it.
type RulesParts struct {
	ID               uint64 // of the whole
	Lease, FoldAfter string // of the Spec
	Pieces           []RulesPiece
}

// A RulesPiece is a piece of what a part says.
type RulesPiece struct {
	Part         int
	ID           uint64 // of the whole part
	Size, Offset int    // of the whole part, and where in it this begins
	Data         []byte
}

// RulesHeld is what a child has of the rules that it collects: the ID of each
// part, and of one how many bytes of what the ID stands for.
type RulesHeld struct {
	Parts  []uint64
	Begun  int
	ID     uint64
	Length int
}

// A rulesPart is a part as it travels: its namespaces as a JSON object, if it
// has some, and behind it their longer holds as a JSON array, if it has some.
type rulesPart struct {
	id   uint64
	text []byte
}

// partSpec is what a part says.
type partSpec struct {
	Namespaces map[string]limiter.NamespaceSpec
	Holds      []LongHold
}

// rulesParts are the parts of the rules that this place follows, and the ID of
// the whole.
func (m *Machine) rulesParts() (parts [limiter.Parts]rulesPart, id uint64) {
	holds := map[int][]LongHold{}
	for _, h := range m.longHolds() {
		i := limiter.PartOf(h.Namespace)
		holds[i] = append(holds[i], h)
	}
	for i := range parts {
		p := &parts[i]
		if p.text, p.id = m.rules.Part(i); holds[i] == nil {
			continue
		}
		more, err := json.Marshal(holds[i])
		if err != nil {
			panic(err) // strings and numbers
		}
		p.text = append(slices.Clip(p.text), more...)
		p.id = hashOf(p.text)
	}
	spec := m.rules.Spec()
	return parts, wholeID(spec.Lease, spec.FoldAfter, func(i int) uint64 { return parts[i].id })
}

func hashOf(text []byte) uint64 {
	if len(text) == 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write(text) // a hash.Hash never fails
	return h.Sum64()
}

// wholeID is made of all that rules say.
func wholeID(lease, foldAfter string, part func(int) uint64) uint64 {
	b := fmt.Appendf(nil, "%q %q", lease, foldAfter)
	for i := range limiter.Parts {
		b = binary.LittleEndian.AppendUint64(b, part(i))
	}
	return hashOf(b)
}

// tellRules puts into an answer the rules of this place, or as much of them as
// has room in its half.
func (m *Machine) tellRules(r *Report, a *Ack) {
	left, keep := &m.lower.room, m.lower.room/2
	whole := &RulesRecord{Version: m.version, Rules: m.rules, Holds: m.longHolds()}
	if left.take(whole.size(), keep) {
		a.Rules = whole
		return
	}
	parts, id := m.rulesParts()
	spec := m.rules.Spec()
	told := &RulesParts{ID: id, Lease: spec.Lease, FoldAfter: spec.FoldAfter}
	if !left.take(told.size(), keep) {
		return
	}
	a.Parts = told
	if r.Parts == nil || len(r.Parts.Parts) != limiter.Parts {
		return // the next report says what it has
	}
	begun := max(0, min(r.Parts.Begun, limiter.Parts-1))
	for n := range limiter.Parts {
		i := (begun + n) % limiter.Parts // what was begun first
		p := &parts[i]
		if r.Parts.Parts[i] == p.id {
			continue
		}
		piece := RulesPiece{Part: i, ID: p.id, Size: len(p.text)}
		if n == 0 && r.Parts.ID == p.id && r.Parts.Length > 0 && r.Parts.Length < len(p.text) {
			piece.Offset = r.Parts.Length
		}
		rest := len(p.text) - piece.Offset
		fits := int(*left-keep) - piece.size()
		if fits < min(1, rest) {
			return
		}
		piece.Data = p.text[piece.Offset : piece.Offset+min(rest, fits)]
		left.take(piece.size(), keep)
		if told.Pieces = append(told.Pieces, piece); fits < rest {
			return
		}
	}
}

// A collection is what a place has of its parent's rules that it does not
// follow yet.
type collection struct {
	base  *limiter.Rules // those that it follows: what was not sent is as there
	ids   [limiter.Parts]uint64
	parts map[int]partSpec // those that were sent
	sizes [limiter.Parts]int
	begun RulesPiece // Data is what came of it
	wrong uint64     // the ID of a whole that cannot be read
}

func newCollection(base *limiter.Rules) *collection {
	c := &collection{base: base, parts: map[int]partSpec{}}
	for i := range c.ids {
		_, c.ids[i] = base.Part(i)
	}
	return c
}

// held is what a report says of it; nil, if nothing is collected, or what there
// is cannot be read.
func (c *collection) held() *RulesHeld {
	if c == nil || c.wrong != 0 {
		return nil
	}
	return &RulesHeld{Parts: slices.Clone(c.ids[:]), Begun: c.begun.Part, ID: c.begun.ID, Length: len(c.begun.Data)}
}

// collect takes what an answer says of the parent's rules in parts, and returns
// the rules once they are whole.
func (m *Machine) collect(r *Report, a *Ack) *RulesRecord {
	u := &m.upper
	if a.Version < m.version {
		u.collected = nil
		return nil
	}
	if u.collected == nil || u.collected.base != m.rules {
		u.collected = newCollection(m.rules)
	}
	c, told := u.collected, a.Parts
	if c.wrong != 0 {
		if c.wrong == told.ID {
			return nil
		}
		c.wrong = 0
	}
	var problem error
	for _, p := range told.Pieces {
		if problem = c.take(p); problem != nil {
			break
		}
	}
	var rules *limiter.Rules
	switch {
	case problem != nil:
	case wholeID(told.Lease, told.FoldAfter, func(i int) uint64 { return c.ids[i] }) != told.ID:
		u.hurry = u.hurry || r.Parts == nil || len(told.Pieces) > 0
		return nil
	default:
		rules, problem = c.rules(told)
	}
	if problem != nil {
		m.event(EventRulesDiffer, m.cfg.Place.Parent(), fmt.Sprintf("version %d of its rules cannot be read: %v", a.Version, problem))
		u.collected = newCollection(m.rules)
		u.collected.wrong = told.ID
		return nil
	}
	record := &RulesRecord{Version: a.Version, Rules: rules}
	for i := range limiter.Parts {
		record.Holds = append(record.Holds, c.parts[i].Holds...)
	}
	u.collected = nil
	return record
}

// rules puts together what was collected.
func (c *collection) rules(told *RulesParts) (*limiter.Rules, error) {
	changed := make(map[int]map[string]limiter.NamespaceSpec, len(c.parts))
	for i, p := range c.parts {
		changed[i] = p.Namespaces
	}
	return c.base.With(limiter.Spec{Lease: told.Lease, FoldAfter: told.FoldAfter}, changed)
}

// take takes a piece, if it is the next of the part that is begun, or the first
// of another.
func (c *collection) take(p RulesPiece) error {
	if p.Part < 0 || p.Part >= limiter.Parts || p.Size < 0 || p.Size > maxPartSize || p.Offset < 0 || len(p.Data) > p.Size-p.Offset {
		return fmt.Errorf("a piece of %d bytes at %d of %d of part %d is out of range", len(p.Data), p.Offset, p.Size, p.Part)
	}
	b := &c.begun
	switch {
	case p.Offset == 0:
		*b = RulesPiece{Part: p.Part, ID: p.ID, Size: p.Size}
	case b.Part != p.Part || b.ID != p.ID || b.Size != p.Size || len(b.Data) != p.Offset:
		return nil // of what was begun by another report
	}
	if b.Data = append(b.Data, p.Data...); len(b.Data) < b.Size {
		return nil
	}
	whole := *b
	*b = RulesPiece{}
	if hashOf(whole.Data) != whole.ID {
		return nil // it is asked for again
	}
	spec, err := readPart(whole.Data)
	if err != nil {
		return fmt.Errorf("part %d: %w", whole.Part, err)
	}
	size := whole.Size
	for i, s := range c.sizes {
		if i != whole.Part {
			size += s
		}
	}
	if size > maxPartSize { // of several versions: they changed meanwhile
		*c = *newCollection(c.base)
		return nil
	}
	c.ids[whole.Part], c.parts[whole.Part], c.sizes[whole.Part] = whole.ID, spec, whole.Size
	return nil
}

// maxPartSize bounds what is collected: the rules, and all their holds.
const maxPartSize = limiter.MaxWritten + maxHolds*maxHoldText

// readPart reads what rulesParts writes.
func readPart(text []byte) (spec partSpec, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	for d.More() {
		var raw json.RawMessage
		if err = d.Decode(&raw); err != nil {
			return spec, err
		}
		if raw[0] == '[' {
			err = json.Unmarshal(raw, &spec.Holds)
		} else {
			err = json.Unmarshal(raw, &spec.Namespaces)
		}
		if err != nil {
			return spec, err
		}
	}
	return spec, nil
}
