package limiter

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
)

// This file divides rules into parts, so that of many rules only those travel
// that changed. A namespace's name says which part it is in, for good.

const (
	// Parts is how many parts rules have.
	Parts = 64
	// MaxSize is how many bytes rules may have as JSON: ten thousand namespaces
	// of two limits have a bit more than one MiB. Ordinals of limits do not
	// count, which the root writes.
	MaxSize = 4 << 20
	// MaxWritten is how many they have with their ordinals, at most: the
	// shortest limit is longer than one.
	MaxWritten = 2 * MaxSize

	ordinalSize = len(`,"ordinal":16`)
)

// ordinals is how many limits say theirs.
func (s *Spec) ordinals() (n int) {
	for _, namespace := range s.Namespaces {
		for i := range namespace.Limits {
			if namespace.Limits[i].Ordinal != 0 {
				n++
			}
		}
	}
	return n
}

// part is what the namespaces of one part say.
type part struct {
	text []byte // their specs as a JSON object; nil where there are none
	hash uint64 // of the text; 0 where there is none
}

// PartOf is the part that a namespace is in.
func PartOf(namespace string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(namespace)) // a hash.Hash never fails
	return int(h.Sum32() % Parts)
}

// Part returns the specs of a part's namespaces as a JSON object, or nil where
// it has none, and its hash. It must not be changed.
func (r *Rules) Part(i int) (text []byte, hash uint64) { return r.parts[i].text, r.parts[i].hash }

// Size is how many bytes the rules have as JSON.
func (r *Rules) Size() int { return r.size }

// JSON returns the Spec as JSON. It costs a copy: the parts are written already.
func (r *Rules) JSON() []byte {
	b := append(make([]byte, 0, r.size), r.head()...)
	if r.spec.Namespaces == nil {
		return b
	}
	written := false
	for i := range r.parts {
		if text := r.parts[i].text; text != nil {
			if written {
				b = append(b, ',')
			}
			b, written = append(b, text[1:len(text)-1]...), true
		}
	}
	return append(b, "}}"...)
}

// head is how the JSON begins, up to the first namespace.
func (r *Rules) head() []byte {
	b, err := json.Marshal(Spec{Lease: r.spec.Lease, FoldAfter: r.spec.FoldAfter})
	if err != nil {
		panic(err) // strings
	}
	if r.spec.Namespaces == nil {
		return b
	}
	if b = b[:len(b)-1]; len(b) > 1 { // something stands at the top
		b = append(b, ',')
	}
	return append(b, `"namespaces":{`...)
}

// With returns rules whose top says what top does, with other namespaces in
// some parts, which are given by number. What is in no such part is not
// compiled again.
func (r *Rules) With(top Spec, changed map[int]map[string]NamespaceSpec) (*Rules, error) {
	top.Namespaces = maps.Clone(r.spec.Namespaces)
	maps.DeleteFunc(top.Namespaces, func(name string, _ NamespaceSpec) bool {
		_, is := changed[PartOf(name)]
		return is
	})
	for i, namespaces := range changed {
		for name, spec := range namespaces {
			if PartOf(name) != i {
				return nil, fmt.Errorf("namespace %q is in part %d of the rules, not in %d", name, PartOf(name), i)
			}
			top.Namespaces[name] = spec
		}
	}
	return build(top, r, changed)
}

// divide writes the parts, those that did not change as they were.
func (r *Rules) divide(before *Rules, changed map[int]map[string]NamespaceSpec) {
	divided := map[int]map[string]NamespaceSpec{}
	if before != nil {
		r.parts, divided = before.parts, changed
	} else {
		for name, spec := range r.spec.Namespaces {
			i := PartOf(name)
			if divided[i] == nil {
				divided[i] = map[string]NamespaceSpec{}
			}
			divided[i][name] = spec
		}
	}
	for i, namespaces := range divided {
		r.parts[i] = newPart(namespaces)
	}
	if r.size = len(r.head()); r.spec.Namespaces != nil {
		r.size += len("}}")
	}
	written := 0
	for i := range r.parts {
		if text := r.parts[i].text; text != nil {
			r.size += len(text) - len("{}")
			written++
		}
	}
	r.size += max(0, written-1) // commas
}

func newPart(namespaces map[string]NamespaceSpec) part {
	if len(namespaces) == 0 {
		return part{}
	}
	text, err := json.Marshal(namespaces) // in the order of their names
	if err != nil {
		panic(err) // strings and numbers
	}
	h := fnv.New64a()
	_, _ = h.Write(text) // a hash.Hash never fails
	return part{text, h.Sum64()}
}
