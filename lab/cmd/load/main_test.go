package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A server that answers as it should: nothing breaks, nothing fails, all is counted.
func TestDrive(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(echo))
	defer server.Close()
	got := &tally{}
	if err := drive(t.Context(), strings.TrimPrefix(server.URL, "http://"), 20, 50, 1200*time.Millisecond, got); err != nil {
		t.Fatal(err)
	}
	r := got.result()
	if r.Opened != 20 || r.Broken+r.Failed != 0 || r.Exchanges < 20 || r.Made < 20 {
		t.Errorf("%+v", r)
	}
}

// A server that hangs up on one connection and gives a wrong answer to another.
func TestDriveSeesWhatBreaks(t *testing.T) {
	var seen atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n := seen.Add(1); {
		case n == 4:
			panic(http.ErrAbortHandler)
		case n == 5:
			fmt.Fprintln(w, "Hostname: one\nsomething else")
		default:
			echo(w, r)
		}
	}))
	defer server.Close()
	got := &tally{}
	if err := drive(t.Context(), strings.TrimPrefix(server.URL, "http://"), 3, 1, 800*time.Millisecond, got); err != nil {
		t.Fatal(err)
	}
	if r := got.result(); r.Opened != 3 || r.Broken+r.Failed != 2 {
		t.Errorf("%+v: want two of them broken", r)
	}
}

func TestNobodyThere(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(echo))
	server.Close()
	if err := drive(t.Context(), strings.TrimPrefix(server.URL, "http://"), 1, 1, time.Second, &tally{}); err == nil {
		t.Error("no error")
	}
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "Hostname: one\n%s\n", body)
}
