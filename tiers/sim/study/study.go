package study

import (
	"context"
	"sync"
	"sync/atomic"
)

// Run measures cells, as many at a time as there are workers. It calls
// progress when one is done, from any of them. It ends early when ctx does.
func Run(ctx context.Context, cells []Cell, workers int, progress func(done int)) ([]Result, error) {
	results := make([]Result, len(cells))
	var next, done atomic.Int64
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(cells) {
					return
				}
				results[i] = Measure(cells[i])
				progress(int(done.Add(1)))
			}
		})
	}
	running.Wait()
	return results, ctx.Err()
}
