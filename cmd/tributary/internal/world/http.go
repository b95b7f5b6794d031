package world

import (
	"encoding/json"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Health serves /metrics, /healthz and /readyz. The process is healthy while
// it answers; it is ready when all of its places are.
func (w *World) Health(mux *http.ServeMux, figures prometheus.Gatherer) {
	mux.Handle("GET /metrics", promhttp.HandlerFor(figures, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = rw.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(rw http.ResponseWriter, _ *http.Request) {
		status := http.StatusOK
		places := make(map[string]string, len(w.nodes))
		for _, n := range w.nodes {
			err, why := n.Ready(), n.Refused()
			switch {
			case err != nil:
				places[string(n.Place)] = err.Error()
				status = http.StatusServiceUnavailable
			case why != "": // it works, as one whose parent is away does
				places[string(n.Place)] = "ready, but refused: " + why
			default:
				places[string(n.Place)] = "ready"
			}
		}
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(status)
		_ = json.NewEncoder(rw).Encode(map[string]any{"ready": status == http.StatusOK, "places": places}) // the caller may be gone
	})
}
