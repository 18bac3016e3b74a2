package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
)

// page is what ealen/echo-server answers with.
type page struct {
	Host struct {
		Hostname string   `json:"hostname"` // the name that the client asked for
		IP       string   `json:"ip"`
		IPs      []string `json:"ips"`
	} `json:"host"`
	HTTP struct {
		Method      string `json:"method"`
		BaseURL     string `json:"baseUrl"`
		OriginalURL string `json:"originalUrl"`
		Protocol    string `json:"protocol"`
	} `json:"http"`
	Request struct {
		Params  map[string]string `json:"params"`
		Query   map[string]string `json:"query"`
		Cookies map[string]string `json:"cookies"`
		Body    any               `json:"body"`
		Headers map[string]string `json:"headers"`
	} `json:"request"`
	Environment map[string]string `json:"environment"`
}

// answerJSON writes the page of ealen/echo-server.
func answerJSON(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	json.NewEncoder(w).Encode(pageOf(r, body))
}

func pageOf(r *http.Request, body []byte) page {
	var p page
	p.Host.Hostname, _, _ = strings.Cut(r.Host, ":")
	p.Host.IP = clientAddress(r)
	p.Host.IPs = []string{}
	p.HTTP.Method, p.HTTP.OriginalURL, p.HTTP.Protocol = r.Method, r.URL.RequestURI(), "http"
	p.Request.Params = map[string]string{"0": r.URL.Path}
	p.Request.Query = map[string]string{}
	for k, v := range r.URL.Query() {
		p.Request.Query[k] = v[0]
	}
	p.Request.Cookies = map[string]string{}
	for _, c := range r.Cookies() {
		p.Request.Cookies[c.Name] = c.Value
	}
	p.Request.Body = bodyOf(body)
	p.Request.Headers = headersOf(r)
	p.Environment = environment()
	return p
}

// bodyOf is the body as JSON where it is JSON, else as text, and {} when empty.
func bodyOf(body []byte) any {
	if len(body) == 0 {
		return struct{}{}
	}
	if json.Valid(body) {
		return json.RawMessage(body)
	}
	return string(body)
}

// environment has HOSTNAME even where the runtime does not set it: it is what
// tells one pod from another.
func environment() map[string]string {
	env := map[string]string{"HOSTNAME": hostname()}
	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	return env
}
