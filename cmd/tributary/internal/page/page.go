// Package page is the web page of `tributary demo`: a world of places, its totals, one limit that it shares, and
// buttons to vote and to cut and mend links.
//
// It is one [http.Handler] with its assets embedded: no build step, and no request leaves the server's origin.
//
//	GET  /         the page, and its /assets/
//	GET  /events   server-sent events: a [World] as JSON, four times a second, while someone watches
//	POST /vote     {"place":"eu.de.berlin","candidate":"ada"} → {"place":…,"candidate":…,"total":1042}
//	POST /link     {"place":"eu.de","up":false} → {"place":…,"up":…}
//
// One sampler asks the [Source], however many watch. A viewer that reads slowly misses samples and holds up nobody.
// The package knows nothing of how the world runs: it sees numbers and calls two methods.
package page

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

const (
	// SampleInterval is how often the world is sampled while someone watches: often enough that totals seem to
	// flow (the page smooths between samples), seldom enough to cost the demo nothing.
	SampleInterval = 250 * time.Millisecond
	// MaxViewers is how many streams are open at once: far more than a demo has, and at about 60 KB a second each
	// less than a home's network carries.
	MaxViewers = 64
	// MaxActions is how many votes and link changes may be in flight.
	MaxActions = 64
	// ActionTimeout is how long one vote or link change may take.
	ActionTimeout = 5 * time.Second
)

// Options change what most callers leave alone; the zero value is right for the demo.
type Options struct {
	Interval time.Duration // between samples; 0: SampleInterval
	Viewers  int           // streams at once; 0: MaxViewers
}

// Page serves the page of one source.
type Page struct {
	hub     *hub
	handler http.Handler
}

// Handler returns the page of a source. Close it before the source, and before [http.Server.Shutdown], which would
// wait for the open streams.
func Handler(s Source, o Options) *Page {
	if o.Interval <= 0 {
		o.Interval = SampleInterval
	}
	if o.Viewers <= 0 {
		o.Viewers = MaxViewers
	}
	p := &Page{hub: newHub(s, o)}
	mux := http.NewServeMux()
	for name, a := range assets {
		mux.Handle("GET "+name, a)
	}
	mux.HandleFunc("GET /events", p.events)
	mux.HandleFunc("POST /vote", p.vote)
	mux.HandleFunc("POST /link", p.link)
	p.handler = mux
	return p
}

func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	p.handler.ServeHTTP(w, r)
}

// Close ends the streams and what is in flight, and waits until the source is used no more. From then on every
// stream and action is answered with 503. It may be called twice.
func (p *Page) Close() { p.hub.close() }

//go:embed assets
var files embed.FS

// assets are the embedded files by the pattern that they are served under.
var assets = loadAssets()

// asset is one file. It is revalidated on every load (a new binary must not meet an old script), which its ETag makes
// an empty answer.
type asset struct {
	name, kind, etag string
	body             string
}

// contentTypes are named here, because the machine's own table of them may say anything.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

func loadAssets() map[string]asset {
	all := map[string]asset{}
	err := fs.WalkDir(files, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		kind := contentTypes[path.Ext(name)]
		if kind == "" {
			panic("page: no content type for " + name)
		}
		sum := sha256.Sum256(body)
		pattern := "/" + name
		if name == "assets/index.html" {
			pattern = "/{$}"
		}
		all[pattern] = asset{name: name, kind: kind, etag: `"` + hex.EncodeToString(sum[:12]) + `"`, body: string(body)}
		return nil
	})
	if err != nil {
		panic("page: embedded assets: " + err.Error()) // a broken build, never a broken input
	}
	return all
}

func (a asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", a.kind)
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("ETag", a.etag)
	http.ServeContent(w, r, a.name, time.Time{}, strings.NewReader(a.body))
}
