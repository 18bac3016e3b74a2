// Package imds serves an instance's metadata, as version 2 of EC2's service does: whoever asks first
// gets a token.
package imds

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/zonewise/zonewise/lab/region/ec2"
)

const (
	tokenHeader = "X-Aws-Ec2-Metadata-Token"
	ttlHeader   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	maxTTL      = 21600
)

// Server answers what one instance asks about itself. Whose question it is follows from where it came
// in: each instance has a listener of its own.
type Server struct {
	cloud    *ec2.Cloud
	instance string
	lag      time.Duration

	mu      sync.Mutex
	records *ec2.Records
	at      time.Time
}

// New makes the server of one instance. Its answers are up to lag behind what the region knows.
func New(cloud *ec2.Cloud, instance string, lag time.Duration) *Server {
	return &Server{cloud: cloud, instance: instance, lag: lag}
}

// known are the records to answer from, and of what time they are.
func (s *Server) known() (*ec2.Records, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.cloud.Now(); s.records == nil || now.Sub(s.at) >= s.lag {
		s.records, s.at = s.cloud.Records(), now
	}
	return s.records, s.at
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Server", "EC2ws")
	if r.URL.Path == "/latest/api/token" {
		s.issue(w, r)
		return
	}
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(w, "405 - Method Not Allowed", http.StatusMethodNotAllowed)
		return
	case !s.valid(r.Header.Get(tokenHeader)):
		http.Error(w, "401 - Unauthorized", http.StatusUnauthorized)
		return
	}
	path := strings.Trim(r.URL.Path, "/")
	if path == "" {
		_, _ = fmt.Fprint(w, "latest")
		return
	}
	version, rest, _ := strings.Cut(path, "/")
	records, at := s.known()
	t, ok := grow(records, s.instance, at)
	value := ""
	if ok {
		value, ok = t.at(rest)
	}
	if !ok || version != "latest" {
		http.Error(w, "404 - Not Found", http.StatusNotFound)
		return
	}
	_, _ = fmt.Fprint(w, value) // who went away needs no answer
}

// issue gives a token that holds for as long as was asked.
func (s *Server) issue(w http.ResponseWriter, r *http.Request) {
	ttl, err := strconv.Atoi(r.Header.Get(ttlHeader))
	switch {
	case r.Method != http.MethodPut:
		http.Error(w, "405 - Method Not Allowed", http.StatusMethodNotAllowed)
	case r.Header.Get("X-Forwarded-For") != "":
		http.Error(w, "403 - Forbidden", http.StatusForbidden)
	case err != nil || ttl < 1 || ttl > maxTTL:
		http.Error(w, "400 - Bad Request", http.StatusBadRequest)
	default:
		w.Header().Set(ttlHeader, strconv.Itoa(ttl))
		_, _ = fmt.Fprint(w, s.token(s.cloud.Now().Add(time.Duration(ttl)*time.Second)))
	}
}

// token holds until a time. It says so itself, signed, so that nobody has to remember it.
func (s *Server) token(until time.Time) string {
	text := strconv.FormatInt(until.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(s.cloud.Records().Seed))
	mac.Write([]byte(s.instance + " " + text))
	return base64.URLEncoding.EncodeToString(append(mac.Sum(nil), text...))
}

func (s *Server) valid(token string) bool {
	data, err := base64.URLEncoding.DecodeString(token)
	if err != nil || len(data) <= sha256.Size {
		return false
	}
	seconds, err := strconv.ParseInt(string(data[sha256.Size:]), 10, 64)
	if err != nil {
		return false
	}
	until := time.Unix(seconds, 0)
	return s.cloud.Now().Before(until) && hmac.Equal([]byte(s.token(until)), []byte(token))
}
