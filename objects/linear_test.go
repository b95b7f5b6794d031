package objects

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestOperationsAreLinearizableOverCrashes has clients, in parallel and in real time, use a few objects of a store that
// crashes and is opened again, and lets porcupine look for an order of what they did, object by object, in which each
// operation takes its effect at one moment between its call and its return, and gives what it gave. An operation that a
// crash left without an answer may have had its effect before the crash, or never. TRIBUTARY_OBJECTS_HISTORIES=1-10000
// runs others than the first seeds.
func TestOperationsAreLinearizableOverCrashes(t *testing.T) {
	checkLeaks(t)
	first, last := seedRange(t, "TRIBUTARY_OBJECTS_HISTORIES", 1000, 200, 50)
	known, unknown := 0, 0
	for seed := first; seed <= last; seed++ {
		history := recordHistory(t, seed)
		switch porcupine.CheckOperationsTimeout(objectModel, history, time.Minute) {
		case porcupine.Illegal:
			t.Fatalf("seed %d: the history is not linearizable:\n%s", seed, showHistory(history))
		case porcupine.Unknown:
			t.Errorf("seed %d: porcupine found nothing in a minute", seed)
		case porcupine.Ok:
		}
		for _, o := range history {
			if o.Output.(answer).known {
				known++
			} else {
				unknown++
			}
		}
	}
	t.Logf("%d operations in %d histories, and %d of which nobody knows", known, last-first+1, unknown)
	if last-first > 10 && (unknown == 0 || unknown > known) {
		t.Error("the histories are not what they should be")
	}
}

// question is what an operation was asked.
type question struct {
	object, key int
	what        string
	number      uint32
}

// answer is what it gave: a number, or the object's two. 0 is a key that is not there.
type answer struct {
	known   bool
	numbers [2]uint32
}

// objectModel is an object of two keys.
var objectModel = (&porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		var all [linearObjects][]porcupine.Operation
		for _, o := range history {
			n := o.Input.(question).object
			all[n] = append(all[n], o)
		}
		return all[:]
	},
	Init: func() []any { return []any{[2]uint32{}} },
	Step: func(state, input, output any) []any {
		before, q, a := state.([2]uint32), input.(question), output.(answer)
		after := before
		gives := q.act(&after)
		switch {
		case !a.known:
			return []any{before, after}
		case a.numbers == gives:
			return []any{after}
		}
		return nil
	},
}).ToModel()

const linearObjects = 3

// act does on a state what was asked, and gives the answer.
func (q question) act(state *[2]uint32) (gives [2]uint32) {
	switch q.what {
	case "put":
		state[q.key] = q.number
	case "add":
		state[q.key] += q.number
		gives[0] = state[q.key]
	case "delete":
		state[q.key] = 0
	case "get":
		gives[0] = state[q.key]
	case "list":
		gives = *state
	}
	return gives
}

// do does it on an object.
func (q question) do(tx *Tx) (gives [2]uint32, err error) {
	key := keyNames[q.key]
	put := func(n uint32) error { return tx.Put(key, binary.BigEndian.AppendUint32(nil, n)) }
	get := func() (uint32, error) {
		v, ok, err := tx.Get(key)
		if err != nil || !ok {
			return 0, err
		}
		return binary.BigEndian.Uint32(v), nil
	}
	switch q.what {
	case "put":
		err = put(q.number)
	case "add":
		if gives[0], err = get(); err == nil {
			gives[0] += q.number
			err = put(gives[0])
		}
	case "delete":
		err = tx.Delete(key)
	case "get":
		gives[0], err = get()
	case "list":
		for e, err := range tx.List(ListOptions{}) {
			if err != nil {
				return gives, err
			}
			gives[e.Key[0]-'a'] = binary.BigEndian.Uint32(e.Value)
		}
	}
	return gives, err
}

// recorder gathers a history. Its moments are those of one counter.
type recorder struct {
	mu      sync.Mutex
	moment  int64
	history []porcupine.Operation
	down    bool
	next    *vfs.MemFS // what the crash left
}

func (r *recorder) call(q question) (id int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moment++
	r.history = append(r.history, porcupine.Operation{Input: q, Output: answer{}, Call: r.moment})
	return len(r.history) - 1
}

func (r *recorder) answer(id int, numbers [2]uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.moment++; !r.down {
		r.history[id].Output, r.history[id].Return = answer{true, numbers}, r.moment
	}
}

// crash ends a life: what comes from now on is not heard, and what was not answered until after it ended then.
func (r *recorder) crash(mem *vfs.MemFS, keep vfs.CrashCloneCfg) {
	r.mu.Lock()
	if r.down {
		r.mu.Unlock()
		return
	}
	r.down = true
	r.mu.Unlock()
	clone := mem.CrashClone(keep)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next = clone
	r.moment++
	for i := range r.history {
		if r.history[i].Return == 0 {
			r.history[i].Return = r.moment
		}
	}
}

func recordHistory(t *testing.T, seed uint64) []porcupine.Operation {
	rng := rand.New(rand.NewPCG(seed, 0))
	r := &recorder{}
	mem := vfs.NewCrashableMem()
	memory := []int64{1, 1 << 20}[rng.IntN(2)]
	lives := 1 + rng.IntN(3)
	for life := 0; life <= lives; life++ {
		fs := &gateFS{FS: mem}
		s, err := Open("d", Options{FS: fs, MemTableBytes: 64 << 10, CacheBytes: 256 << 10, Memory: memory, StuckAfter: -1})
		must(t, err)
		k := Register(s, "thing", func(*Tx) (int, error) { return 0, nil })
		use := func(q question, d Durability) error {
			id := r.call(q)
			var gives [2]uint32
			err := k.Do(ctx, name(q.object), func(tx *Tx, _ int) (err error) {
				tx.SetDurability(d)
				gives, err = q.do(tx)
				return err
			})
			if err == nil && d == Sync {
				r.answer(id, gives)
			}
			return err
		}
		if life == lives { // the last looks, and ends well
			for o := range linearObjects {
				must(t, use(question{object: o, what: "list"}, Sync))
			}
			must(t, s.Close())
			break
		}

		syncs, crashAt := 0, 1+rng.IntN(30)
		frng := rand.New(rand.NewPCG(rng.Uint64(), 1))
		keep := vfs.CrashCloneCfg{
			UnsyncedDataPercent: []int{0, 0, 50, 100}[rng.IntN(4)], RNG: rand.New(rand.NewPCG(rng.Uint64(), 3)),
		}
		fs.hook(func() {
			if syncs++; syncs == crashAt {
				r.crash(mem, keep)
			}
			for range frng.IntN(20) {
				runtime.Gosched()
			}
		})
		var clients sync.WaitGroup
		for range 2 + rng.IntN(3) {
			crng := rand.New(rand.NewPCG(rng.Uint64(), 2))
			clients.Go(func() {
				for range 20 {
					q := question{
						object: crng.IntN(linearObjects), key: crng.IntN(2), number: crng.Uint32N(1000) + 1,
						what: []string{"put", "add", "add", "delete", "get", "list"}[crng.IntN(6)],
					}
					d := Sync
					if writes := q.what == "put" || q.what == "delete"; writes && crng.IntN(6) == 0 {
						d = Async
					}
					r.mu.Lock()
					down := r.down
					r.mu.Unlock()
					if down {
						return
					}
					if err := use(q, d); err != nil {
						t.Error(err)
					}
				}
			})
		}
		clients.Wait()
		r.crash(mem, keep)
		must(t, s.Close())
		r.mu.Lock()
		mem, r.down = r.next, false
		r.history = slices.DeleteFunc(r.history, func(o porcupine.Operation) bool { return o.Return == 0 }) // called later
		r.mu.Unlock()
	}
	return r.history
}

func showHistory(history []porcupine.Operation) string {
	var b strings.Builder
	for _, o := range history {
		q, a := o.Input.(question), o.Output.(answer)
		fmt.Fprintf(&b, "%5d to %5d: object %d key %d %s %d: %v\n", o.Call, o.Return, q.object, q.key, q.what, q.number, a)
	}
	return b.String()
}
