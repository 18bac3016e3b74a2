package cluster

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"

	"github.com/zonewise/zonewise/lab/region"
)

// forwardTCP hands connections of a listener to a target in another network namespace, until ctx
// ends or the listener is closed. The host's own network needs no change for it.
func forwardTCP(ctx context.Context, listener net.Listener, ns *os.File, target string) {
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		client, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of files, or a client that has gone already
			if !pause(ctx, pollInterval) {
				return
			}
			continue
		}
		go func() {
			defer func() { _ = client.Close() }()
			var server net.Conn
			if err := region.In(ns, func() (err error) {
				server, err = (&net.Dialer{}).DialContext(ctx, "tcp", target)
				return err
			}); err != nil {
				return
			}
			defer func() { _ = server.Close() }()
			splice(client, server)
		}()
	}
}

// splice copies both ways until both sides are done, passing on half-closes.
func splice(a, b net.Conn) {
	var both sync.WaitGroup
	oneWay := func(to, from net.Conn) {
		defer both.Done()
		_, err := io.Copy(to, from)
		if tcp, ok := to.(*net.TCPConn); ok && err == nil {
			_ = tcp.CloseWrite()
		} else {
			_ = to.Close()
		}
	}
	both.Add(2)
	go oneWay(a, b)
	go oneWay(b, a)
	both.Wait()
}

// udpClients is how many clients of one UDP port are remembered at once.
const udpClients = 256

// forwardUDP hands datagrams to a target in another network namespace, with one socket there for
// each client, so that answers find their way back.
func forwardUDP(ctx context.Context, socket net.PacketConn, ns *os.File, target string) {
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer stop()
	var order []string // of clients, the oldest first
	servers := map[string]net.Conn{}
	defer func() {
		for _, s := range servers {
			_ = s.Close()
		}
	}()
	buffer := make([]byte, 65535)
	for {
		n, from, err := socket.ReadFrom(buffer)
		if err != nil {
			return
		}
		server, ok := servers[from.String()]
		if !ok {
			if err := region.In(ns, func() (err error) {
				server, err = net.Dial("udp", target)
				return err
			}); err != nil {
				continue
			}
			if len(order) == udpClients {
				_ = servers[order[0]].Close()
				delete(servers, order[0])
				order = order[1:]
			}
			servers[from.String()], order = server, append(order, from.String())
			go answerUDP(socket, from, server)
		}
		_, _ = server.Write(buffer[:n])
	}
}

// answerUDP brings a server's answers to one client until the server's socket is closed.
func answerUDP(socket net.PacketConn, client net.Addr, server net.Conn) {
	answer := make([]byte, 65535)
	for {
		n, err := server.Read(answer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // nobody listens there: an ICMP message said so, and the next may be answered
		}
		if _, err := socket.WriteTo(answer[:n], client); err != nil {
			return
		}
	}
}
