package ask

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// apiServer stands in for one that forwards to a pod, and knows SPDY alone. Serve gets the
// streams of one connection.
func apiServer(t *testing.T, serve func(data, failures httpstream.Stream)) Forwarder {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/namespaces/kube-system/pods/a/portforward" {
			http.Error(w, r.URL.Path, http.StatusNotFound)
			return
		}
		if r.Header.Get("Upgrade") == "websocket" {
			http.Error(w, "no websockets here", http.StatusForbidden)
			return
		}
		if _, err := httpstream.Handshake(r, w, []string{portforward.PortForwardProtocolV1Name}); err != nil {
			t.Error(err)
			return
		}
		streams := make(chan httpstream.Stream, 2)
		conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
			streams <- s
			return nil
		})
		if conn == nil {
			return
		}
		defer conn.Close()
		failures := <-streams
		serve(<-streams, failures)
		<-conn.CloseChan()
	}))
	t.Cleanup(s.Close)
	return Forwarder{&rest.Config{Host: s.URL}}
}

func TestGetThroughTheAPIServer(t *testing.T) {
	f := apiServer(t, func(data, failures httpstream.Stream) {
		r, err := http.ReadRequest(bufio.NewReader(data))
		if err != nil {
			t.Error(err)
			return
		}
		body := r.Method + " " + r.URL.Path + " to port " + data.Headers().Get(corev1.PortHeader)
		fmt.Fprintf(data, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		_, _ = failures.Close(), data.Close()
	})
	status, body, err := f.Get(t.Context(), agentPod("a", "n1", corev1.PodRunning), "/v1/services/default/web")
	if err != nil || status != 200 || string(body) != "GET /v1/services/default/web to port 9470" {
		t.Fatal(status, string(body), err)
	}
}

func TestGetTellsWhyThePodRefused(t *testing.T) {
	f := apiServer(t, func(data, failures httpstream.Stream) {
		fmt.Fprint(failures, "dial tcp4 127.0.0.1:9470: connect: connection refused")
		_, _ = failures.Close(), data.Close()
	})
	_, _, err := f.Get(t.Context(), agentPod("a", "n1", corev1.PodRunning), "/healthz")
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Fatal(err)
	}
}

func TestGetGivesUp(t *testing.T) {
	f := apiServer(t, func(_, _ httpstream.Stream) {})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, _, err := f.Get(ctx, agentPod("a", "n1", corev1.PodRunning), "/healthz")
	if err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Fatal(err)
	}
}

func TestGetNamesWhatTheAPIServerSays(t *testing.T) {
	f := apiServer(t, nil)
	_, _, err := f.Get(t.Context(), agentPod("gone", "n1", corev1.PodRunning), "/healthz")
	if err == nil || !strings.Contains(err.Error(), "port-forward") {
		t.Fatal(err)
	}
}

// What is streamed comes as it is sent, and ends when nobody listens any more.
func TestOpenReadsWhatGoesOn(t *testing.T) {
	f := apiServer(t, func(data, failures httpstream.Stream) {
		if _, err := http.ReadRequest(bufio.NewReader(data)); err != nil {
			t.Error(err)
			return
		}
		_ = failures.Close()
		fmt.Fprint(data, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n")
	})
	ctx, cancel := context.WithCancel(t.Context())
	resp, err := f.Open(ctx, agentPod("a", "n1", corev1.PodRunning), 9474, "/v1/flows?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() || lines.Text() != "first" {
		t.Fatalf("%q, %v", lines.Text(), lines.Err())
	}
	cancel()
	if lines.Scan() || lines.Err() == nil {
		t.Errorf("%q after the end, %v", lines.Text(), lines.Err())
	}
}
