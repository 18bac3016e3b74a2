package ask

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// Forwarder speaks HTTP to a port on a pod's loopback, through the API server. No local port is opened.
type Forwarder struct{ Config *rest.Config }

// Get asks the agent's local API for a path.
func (f Forwarder) Get(ctx context.Context, pod *corev1.Pod, path string) (int, []byte, error) {
	return f.At(agentPort)(ctx, pod, path)
}

// At asks another local API, by its port.
func (f Forwarder) At(port int) Get {
	return func(ctx context.Context, pod *corev1.Pod, path string) (int, []byte, error) {
		resp, err := f.Open(ctx, pod, port, path)
		if err != nil {
			return 0, nil, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp.StatusCode, body, err
	}
}

// Open asks a port on the pod's loopback for a path. The answer's body may go on for as long as the pod
// likes; it ends with ctx.
func (f Forwarder) Open(ctx context.Context, pod *corev1.Pod, port int, path string) (*http.Response, error) {
	begin := time.Now()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return f.dial(ctx, pod, port)
		},
	}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+strconv.Itoa(port)+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(r)
	switch {
	case err == nil:
		return resp, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("no answer in %v", time.Since(begin).Round(100*time.Millisecond))
	}
	return nil, errors.Unwrap(err) // without the URL, which nobody typed
}

// dial opens a stream to the port. The API server's answer may take as long as it likes; who
// waits is let go when ctx ends.
func (f Forwarder) dial(ctx context.Context, pod *corev1.Pod, port int) (net.Conn, error) {
	d, err := f.dialer(pod)
	if err != nil {
		return nil, err
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		c, err := open(d, port)
		done <- result{c, err}
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				_ = r.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// dialer prefers WebSocket, and falls back to SPDY with servers or proxies that do not know it.
func (f Forwarder) dialer(pod *corev1.Pod) (httpstream.Dialer, error) {
	config := rest.CopyConfig(f.Config)
	config.GroupVersion, config.APIPath = &corev1.SchemeGroupVersion, "/api"
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, err
	}
	url := client.Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	old := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, url)
	ws, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, config)
	if err != nil {
		return nil, err
	}
	return portforward.NewFallbackDialerForStreaming(ws, old, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}

// open begins one forwarded connection: an error stream first, then the data stream.
func open(d httpstream.Dialer, port int) (net.Conn, error) {
	conn, protocol, err := d.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, fmt.Errorf("port-forward: %w", err)
	}
	if protocol != portforward.PortForwardProtocolV1Name {
		_ = conn.Close()
		return nil, fmt.Errorf("port-forward: server speaks %q", protocol)
	}
	h := http.Header{}
	h.Set(corev1.PortHeader, strconv.Itoa(port))
	h.Set(corev1.PortForwardRequestIDHeader, "0")
	h.Set(corev1.StreamType, corev1.StreamTypeError)
	failures, err := conn.CreateStream(h)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("port-forward: %w", err)
	}
	_ = failures.Close() // we only read from it
	h.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := conn.CreateStream(h)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("port-forward: %w", err)
	}
	s := &stream{Stream: data, conn: conn, refused: make(chan error, 1)}
	go s.watch(failures)
	return s, nil
}

// stream is a forwarded connection as a net.Conn.
type stream struct {
	httpstream.Stream
	conn    httpstream.Connection
	refused chan error // one value, when the error stream ends
	got     bool
}

// watch reads why the other side could not connect; nothing if it could.
func (s *stream) watch(failures io.Reader) {
	text, _ := io.ReadAll(failures)
	if t := strings.TrimSpace(string(text)); t != "" {
		s.refused <- errors.New(t)
	}
	close(s.refused)
}

// Read returns the other side's reason instead of a bare end where nothing was received.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	s.got = s.got || n > 0
	if err != nil && !s.got {
		if why := <-s.refused; why != nil {
			return n, why
		}
	}
	return n, err
}

func (s *stream) Close() error {
	_ = s.Stream.Reset() // ends a Read that waits
	return s.conn.Close()
}

func (s *stream) LocalAddr() net.Addr              { return nowhere{} }
func (s *stream) RemoteAddr() net.Addr             { return nowhere{} }
func (s *stream) SetDeadline(time.Time) error      { return nil } // the request's context ends it
func (s *stream) SetReadDeadline(time.Time) error  { return nil }
func (s *stream) SetWriteDeadline(time.Time) error { return nil }

type nowhere struct{}

func (nowhere) Network() string { return "portforward" }
func (nowhere) String() string  { return "portforward" }
