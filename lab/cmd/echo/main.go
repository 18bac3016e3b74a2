// Echo answers every request with what it saw of it. It stands in, offline, for
// two images that Kubernetes guides use: registry.k8s.io/echoserver (plain text,
// port 8080) and ealen/echo-server (JSON, port 80). Called by the name
// echo-server it speaks as the second, otherwise as the first.
//
// Beside that it counts: GET /bytes?n=N sends N bytes, POST /sink answers with
// the number of body bytes that arrived, and the same port number over UDP sends
// each datagram back.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// drain is how long open requests may take after SIGTERM: a little less than the
// 30 seconds that Kubernetes gives a pod by default.
const drain = 25 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	style, port := "text", "8080"
	if filepath.Base(args[0]) == "echo-server" {
		style, port = "json", "80"
	}
	if p := os.Getenv("PORT"); p != "" {
		port = p
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.StringVar(&style, "style", style, "how to answer: text or json")
	addr := flags.String("addr", ":"+port, "address to listen on, TCP and UDP")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	var answer http.HandlerFunc
	switch style {
	case "text":
		answer = answerText
	case "json":
		answer = answerJSON
	default:
		return fmt.Errorf("style %q: want text or json", style)
	}
	return listen(ctx, *addr, handler(answer))
}

// handler is every path of the server; what is not counted is echoed by answer.
func handler(answer http.HandlerFunc) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /bytes", sendBytes)
	mux.HandleFunc("POST /sink", countBytes)
	mux.HandleFunc("/", answer)
	return mux
}

// listen serves TCP and UDP on addr until ctx ends, then lets open requests finish.
func listen(ctx context.Context, addr string, h http.Handler) error {
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	// The port that TCP got, so that ":0" means one number for both.
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		tcp.Close()
		return err
	}
	defer udp.Close()
	return serve(ctx, tcp, udp, h)
}

func serve(ctx context.Context, tcp net.Listener, udp net.PacketConn, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 2)
	go func() { failed <- server.Serve(tcp) }()
	go func() { failed <- echoDatagrams(udp) }()
	select {
	case err := <-failed:
		server.Close()
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := server.Shutdown(last); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return server.Close()
}
