package tiers

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tributary-io/tributary/limiter"
)

// A Place is a node of the hierarchy: "global", the root, or a dotted path
// from the region down, "eu.de.berlin".
type Place string

// Root is the place that has no parent.
const Root Place = "global"

// Bounds of a place's name, so that it always fits a subject.
const (
	maxDepth = 16
	MaxToken = 32 // bytes of one part
)

// ParsePlace checks a place's name: a dotted path, from the region down, of
// tokens [a-z0-9-]{1,32}; or the root's.
func ParsePlace(s string) (Place, error) {
	if s == "" {
		return "", fmt.Errorf("place is empty: name one, such as %q or %q", "eu.de.berlin", Root)
	}
	tokens := strings.Split(s, ".")
	if len(tokens) > maxDepth {
		return "", fmt.Errorf("place %.48q is %d deep: at most %d is allowed", s, len(tokens), maxDepth)
	}
	for _, token := range tokens {
		switch {
		case token == "":
			return "", fmt.Errorf("place %.48q has an empty part: parts are joined by single dots, as in %q", s, "eu.de.berlin")
		case len(token) > MaxToken:
			return "", fmt.Errorf("place %.48q: the part %.48q is %d bytes long, at most %d are allowed", s, token, len(token), MaxToken)
		case strings.Trim(token, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
			return "", fmt.Errorf("place %.48q: the part %.48q may hold only a-z, 0-9 and \"-\"", s, token)
		case token == string(Root) && len(tokens) > 1:
			return "", fmt.Errorf("place %.48q: %q is the root alone, and no part of a path", s, Root)
		}
	}
	return Place(s), nil
}

// Depth is how far below the root a place lies: 0 is the root.
func (p Place) Depth() int {
	if p == Root {
		return 0
	}
	return strings.Count(string(p), ".") + 1
}

// Owns says that the place owns a limit: it is of the place's tier, or at a
// leaf of one below.
func (p Place) Owns(l *limiter.Limit, leaf bool) bool {
	depth, scope := p.Depth(), int(l.Scope)
	return depth == scope || leaf && depth < scope
}

// Parent returns the place above, and "" for the root.
func (p Place) Parent() Place {
	if p == Root {
		return ""
	}
	if i := strings.LastIndexByte(string(p), '.'); i >= 0 {
		return p[:i]
	}
	return Root
}

// Ancestor returns the place itself, or the one above it that lies at depth,
// which is not below it.
func (p Place) Ancestor(depth int) Place {
	for p.Depth() > depth {
		p = p.Parent()
	}
	return p
}

// Tier is the name of the place's depth.
func (p Place) Tier() string {
	names := [...]string{"global", "region", "country", "city"}
	if d := p.Depth(); d < len(names) {
		return names[d]
	}
	return fmt.Sprintf("tier-%d", p.Depth())
}

// A Name is what is counted or limited: a key of a namespace.
type Name struct{ Namespace, Key string }

func (n Name) String() string { return n.Namespace + "/" + n.Key }

// MaxKey is the longest key, in bytes.
const MaxKey = 512

// CheckKey says what is wrong with a key, if anything: it is 1 to MaxKey
// bytes of UTF-8 without control characters.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKey {
		return fmt.Errorf("a key has 1 to %d bytes, this one has %d", MaxKey, len(key))
	}
	if !utf8.ValidString(key) {
		return fmt.Errorf("key %q is not valid UTF-8", key)
	}
	if i := strings.IndexFunc(key, unicode.IsControl); i >= 0 {
		return fmt.Errorf("key %q has a control character at byte %d", key, i)
	}
	return nil
}

// A Total is a count: two figures that only grow, or a sum of such.
type Total struct{ Added, Removed uint64 }

// plus returns the sum, and false if it does not fit.
func (t Total) plus(o Total) (Total, bool) {
	sum := Total{t.Added + o.Added, t.Removed + o.Removed}
	return sum, sum.Added >= t.Added && sum.Removed >= t.Removed
}

// larger is the larger of the two in each part.
func (t Total) larger(o Total) Total { return Total{max(t.Added, o.Added), max(t.Removed, o.Removed)} }

// A Pair is what one replica counted of one key. At a leaf a replica is a
// session; an interior place is one replica, with session 0.
type Pair struct {
	Session uint64
	Total
}
