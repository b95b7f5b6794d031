package page

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// post is a request as the page itself makes it.
func post(path, body string) *http.Request {
	r := httptest.NewRequest("POST", path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return r
}

func ask(t *testing.T, h http.Handler, r *http.Request) (code int, reply map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if err := json.Unmarshal(w.Body.Bytes(), &reply); err != nil {
		t.Fatalf("%s %s answered %d and no JSON: %q", r.Method, r.URL, w.Code, w.Body)
	}
	return w.Code, reply
}

func TestVoteAndLinkReachTheSource(t *testing.T) {
	world := newFakeWorld()
	page := Handler(world, Options{})
	defer page.Close()
	for want := 1.0; want <= 2; want++ {
		code, reply := ask(t, page, post("/vote", `{"place":"eu.de.berlin","candidate":"Ada"}`))
		if code != 200 || reply["total"] != want || reply["place"] != "eu.de.berlin" || reply["candidate"] != "Ada" {
			t.Errorf("a vote got %d %v, want the total %v", code, reply, want)
		}
	}
	for _, up := range []bool{false, true} {
		body, _ := json.Marshal(map[string]any{"place": "eu.de", "up": up})
		code, reply := ask(t, page, post("/link", string(body)))
		if code != 200 || reply["up"] != up || world.places["eu.de"].Linked != up {
			t.Errorf("link up=%v got %d %v, and the link is %v", up, code, reply, world.places["eu.de"].Linked)
		}
	}
}

func TestPostsAreStrict(t *testing.T) {
	world := newFakeWorld()
	page := Handler(world, Options{})
	defer page.Close()
	for _, c := range []struct {
		path, body string
		code       int
		says       string
	}{
		{"/vote", ``, 400, `"candidate", "place"`},
		{"/vote", `[]`, 400, "must be a JSON object"},
		{"/vote", `null`, 400, "must be a JSON object"},
		{"/vote", `{"place":"eu.de.berlin"`, 400, "does not end"},
		{"/vote", `{"place":"eu.de.berlin"}`, 400, "missing"},
		{"/vote", `{"place":"eu.de.berlin","candidate":"Ada"} {}`, 400, "goes on"},
		{"/vote", `{"place":"eu.de.berlin","candidate":"Ada","candidate":"Grace"}`, 400, `"candidate" is there twice`},
		{"/vote", `{"Place":"eu.de.berlin","candidate":"Ada"}`, 400, `unknown field "Place"`},
		{"/vote", `{"place":"eu.de.berlin","candidate":"Ada","delta":9}`, 400, `unknown field "delta"`},
		{"/vote", `{"place":7,"candidate":"Ada"}`, 400, `"place" must be a string`},
		{"/vote", `{"place":{"a":1},"candidate":"Ada"}`, 400, `"place" must be a string`},
		{"/vote", `{"place":"","candidate":"Ada"}`, 400, `"place" must be a string of 1 to 512 bytes`},
		{"/vote", `{"place":"` + strings.Repeat("x", maxName+1) + `","candidate":"Ada"}`, 400, "1 to 512 bytes"},
		{"/vote", `{"place":"` + strings.Repeat("x", maxBody) + `","candidate":"Ada"}`, 413, "too large"},
		{"/vote", "{\"place\":\"\xff\",\"candidate\":\"Ada\"}", 400, "UTF-8"},
		{"/vote", `{"place":"mars","candidate":"Ada"}`, 404, `place "mars": unknown`},
		{"/vote", `{"place":"eu.de","candidate":"Ada"}`, 409, "not allowed: it is no city"},
		{"/link", `{"place":"eu.de","up":"false"}`, 400, `"up" must be true or false`},
		{"/link", `{"place":"eu.de","up":null}`, 400, `"up" must be true or false`},
		{"/link", `{"place":"mars","up":false}`, 404, "mars"},
	} {
		code, reply := ask(t, page, post(c.path, c.body))
		detail, _ := reply["error"].(map[string]any)
		message, _ := detail["message"].(string)
		if code != c.code || detail["code"] != float64(c.code) || !strings.Contains(message, c.says) {
			t.Errorf("POST %s %.80s: %d %q, want %d and %q", c.path, c.body, code, message, c.code, c.says)
		}
	}
	world.linkErr = errors.New("its port is in use")
	if code, reply := ask(t, page, post("/link", `{"place":"eu.de","up":true}`)); code != 503 {
		t.Errorf("a link that failed got %d %v, want 503", code, reply)
	}
	for _, p := range world.places {
		if len(p.Totals) > 0 || !p.Linked {
			t.Errorf("a refused request changed %s", p.Place.Place)
		}
	}
}

func TestCrossSiteRequestsAreRefused(t *testing.T) {
	world := newFakeWorld()
	page := Handler(world, Options{})
	defer page.Close()
	const vote = `{"place":"eu.de.berlin","candidate":"Ada"}`
	for _, c := range []struct {
		name    string
		headers map[string]string
		host    string
		code    int
	}{
		{"another site", map[string]string{"Sec-Fetch-Site": "cross-site"}, "", 403},
		{"a sibling domain", map[string]string{"Sec-Fetch-Site": "same-site"}, "", 403},
		{"another origin, old browser or plain http", map[string]string{"Origin": "http://evil.example"}, "", 403},
		{"a sandboxed frame", map[string]string{"Origin": "null"}, "", 403},
		{"a form", map[string]string{"Sec-Fetch-Site": "same-origin", "Content-Type": "text/plain"}, "", 415},
		{"the page, under any name", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "https://demo.example"}, "10.0.0.7:8080", 200},
		{"the page, by plain http", map[string]string{"Origin": "http://10.0.0.7:8080"}, "10.0.0.7:8080", 200},
		{"curl", nil, "", 200},
	} {
		r := httptest.NewRequest("POST", "/vote", strings.NewReader(vote))
		r.Header.Set("Content-Type", "application/json")
		for name, value := range c.headers {
			r.Header.Set(name, value)
		}
		if c.host != "" {
			r.Host = c.host
		}
		if code, reply := ask(t, page, r); code != c.code {
			t.Errorf("%s: %d %v, want %d", c.name, code, reply, c.code)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, "GET", "/events", nil)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	if code, _ := ask(t, page, r); code != 403 {
		t.Errorf("another site's stream got %d, want 403", code)
	}
	if got := world.places["eu.de.berlin"].Totals["Ada"]; got != 3 {
		t.Errorf("%d votes were counted, want the three that were allowed", got)
	}
}

// stuck is a source whose votes never get an answer.
type stuck struct{ *fakeWorld }

func (stuck) Vote(ctx context.Context, _, _ string) (int64, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

func TestActionsAreBoundedInNumberAndTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := Handler(stuck{newFakeWorld()}, Options{})
		codes := make(chan int)
		vote := func() {
			w := httptest.NewRecorder()
			page.ServeHTTP(w, post("/vote", `{"place":"eu.de.berlin","candidate":"Ada"}`))
			codes <- w.Code
		}
		start := time.Now()
		for range MaxActions {
			go vote()
		}
		synctest.Wait()
		go vote()
		if code := <-codes; code != 503 || time.Since(start) > 0 {
			t.Errorf("one action too many got %d after %v, want 503 at once", code, time.Since(start))
		}
		for range MaxActions {
			if code := <-codes; code != 503 || time.Since(start) != ActionTimeout {
				t.Fatalf("a stuck vote got %d after %v, want 503 after %v", code, time.Since(start), ActionTimeout)
			}
		}
		go vote()
		synctest.Wait()
		go page.Close()
		if code := <-codes; code != 503 || time.Since(start) != ActionTimeout {
			t.Errorf("a vote in flight got %d from Close, want 503 at once", code)
		}
	})
}

func TestAssetsAreServedSafely(t *testing.T) {
	page := Handler(newFakeWorld(), Options{})
	defer page.Close()
	get := func(path, tag string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("If-None-Match", tag)
		page.ServeHTTP(w, r)
		return w
	}
	index := get("/", "")
	for name, want := range map[string]string{
		"Content-Type":            "text/html; charset=utf-8",
		"Cache-Control":           "no-cache",
		"X-Content-Type-Options":  "nosniff",
		"Referrer-Policy":         "no-referrer",
		"Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
	} {
		if got := index.Header().Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if w := get("/", index.Header().Get("ETag")); w.Code != http.StatusNotModified {
		t.Errorf("a page that is cached got %d, want 304", w.Code)
	}
	if w := get("/assets/app.js", ""); w.Code != 200 || w.Header().Get("Content-Type") != "text/javascript; charset=utf-8" {
		t.Errorf("the script got %d, %q", w.Code, w.Header().Get("Content-Type"))
	}
	for _, path := range []string{"/assets/", "/assets/index.html", "/assets/../page.go", "/nothing"} {
		if w := get(path, ""); w.Code == 200 {
			t.Errorf("GET %s got 200", path)
		}
	}
}

// What the page asks for must come from its own server: no asset names another.
func TestAssetsNameNoOtherServer(t *testing.T) {
	url := regexp.MustCompile(`(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^"'\s)]*`)
	for name, a := range assets {
		for _, found := range url.FindAllString(a.body, -1) {
			if found != "http://www.w3.org/2000/svg" {
				t.Errorf("%s names %s", name, found)
			}
		}
	}
}
