package page

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	maxBody = 4 << 10 // bytes of a POST: two names and room to spare
	maxName = 512     // bytes of a place or a candidate, as of any key
)

// crossSite refuses what another site's page makes a browser send: by Sec-Fetch-Site, and where a browser does not
// send that (plain http on another machine's address), by Origin. Whatever Host the page is reached under is fine.
var crossSite http.CrossOriginProtection

func (p *Page) vote(w http.ResponseWriter, r *http.Request) {
	in := body{"place": "", "candidate": ""}
	p.act(w, r, in, func(ctx context.Context) (any, error) {
		place, candidate := in["place"].(string), in["candidate"].(string)
		total, err := p.hub.source.Vote(ctx, place, candidate)
		return struct {
			Place     string `json:"place"`
			Candidate string `json:"candidate"`
			Total     int64  `json:"total"`
		}{place, candidate, total}, err
	})
}

func (p *Page) link(w http.ResponseWriter, r *http.Request) {
	in := body{"place": "", "up": false}
	p.act(w, r, in, func(ctx context.Context) (any, error) {
		place, up := in["place"].(string), in["up"].(bool)
		err := p.hub.source.Link(ctx, place, up)
		return struct {
			Place string `json:"place"`
			Up    bool   `json:"up"`
		}{place, up}, err
	})
}

// act is what every POST has in common: who may ask, what a request must be, and how its outcome is said.
func (p *Page) act(w http.ResponseWriter, r *http.Request, in body, do func(context.Context) (any, error)) {
	if err := crossSite.Check(r); err != nil {
		fail(w, http.StatusForbidden, "cross_site", "this request came from another site; use the demo's own page")
		return
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		fail(w, http.StatusUnsupportedMediaType, "content_type", "Content-Type must be application/json")
		return
	}
	if err := in.read(http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		code := http.StatusBadRequest
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			code = http.StatusRequestEntityTooLarge
		}
		fail(w, code, "bad_request", err.Error())
		return
	}
	ctx, end, err := p.hub.begin(r.Context())
	if err != nil {
		failUnavailable(w, err)
		return
	}
	defer end()
	reply, err := do(ctx)
	switch {
	case err == nil:
		answer(w, http.StatusOK, reply)
	case errors.Is(err, ErrUnknown):
		fail(w, http.StatusNotFound, "unknown", err.Error())
	case errors.Is(err, ErrRefused):
		fail(w, http.StatusConflict, "not_allowed", err.Error())
	default:
		failUnavailable(w, err)
	}
}

// body is a flat JSON object, strictly read. Before, it holds a value of each field's type; after, what was sent.
type body map[string]any

// read takes exactly the fields that the body has, each once, spelt as here. encoding/json's own decoding would take
// "Place" for "place", the last of two, and repair invalid UTF-8.
func (b body) read(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("cannot read the request: %w", err)
	}
	if !utf8.Valid(raw) {
		return errors.New("the request is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("the request must be a JSON object with the fields %s", b.fields())
	}
	seen := map[string]bool{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return fmt.Errorf("the request is not valid JSON: %w", err)
		}
		name := key.(string) // the decoder takes nothing else for a key
		want, known := b[name]
		if !known {
			return fmt.Errorf("unknown field %q; there are %s", name, b.fields())
		}
		if seen[name] {
			return fmt.Errorf("field %q is there twice", name)
		}
		seen[name] = true
		value, err := d.Token()
		if err != nil {
			return fmt.Errorf("field %q is not valid JSON: %w", name, err)
		}
		if err := check(name, value, want); err != nil {
			return err
		}
		b[name] = value
	}
	if _, err := d.Token(); err != nil {
		return errors.New("the request is not valid JSON: its object does not end")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("the request goes on after its JSON object")
	}
	if len(seen) < len(b) {
		return fmt.Errorf("a field is missing; there must be %s", b.fields())
	}
	return nil
}

func check(name string, value, want any) error {
	switch want.(type) {
	case string:
		s, ok := value.(string)
		if !ok || s == "" || len(s) > maxName {
			return fmt.Errorf("field %q must be a string of 1 to %d bytes", name, maxName)
		}
	case bool:
		if _, ok := value.(bool); !ok {
			return fmt.Errorf("field %q must be true or false", name)
		}
	}
	return nil
}

// fields names the fields for an error: "place", "up".
func (b body) fields() string {
	var names []string
	for name := range b {
		names = append(names, fmt.Sprintf("%q", name))
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// fail answers with an error, in the form that errors have on the wire.
func fail(w http.ResponseWriter, code int, reason, message string) {
	type detail struct {
		Code    int    `json:"code"`
		Reason  string `json:"reason"`
		Message string `json:"message"`
	}
	answer(w, code, struct {
		Error detail `json:"error"`
	}{detail{code, reason, message}})
}

func failUnavailable(w http.ResponseWriter, err error) {
	w.Header().Set("Retry-After", "1")
	fail(w, http.StatusServiceUnavailable, "unavailable", err.Error())
}

func answer(w http.ResponseWriter, code int, reply any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(reply) // a client that went needs no answer
}
