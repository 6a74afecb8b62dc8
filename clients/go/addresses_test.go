// Several addresses: which is tried next, by a worker and by a client.

package stepwell_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"

	sw "stepwell.example/stepwell"
	stepwellv1 "stepwell.example/stepwell/v1"
)

// nodes are two servers and their addresses as a setting.
func nodes(t *testing.T) (a, b *fakeServer, address sw.AddressOption) {
	a, b = newFakeServer(t), newFakeServer(t)
	return a, b, sw.Address(" " + a.address + ", http://" + b.address)
}

// either is the next stream at one of two servers; other is the one that it did not come to.
func either(t *testing.T, a, b *fakeServer) (l *link, other *fakeServer) {
	t.Helper()
	select {
	case l := <-a.links:
		return l, b
	case l := <-b.links:
		return l, a
	case <-time.After(within):
		t.Fatal("no stream came")
		return nil, nil
	}
}

func TestAWorkerGoesToTheNextAddressWhenItsStreamBreaks(t *testing.T) {
	a, b, address := nodes(t)
	working(t, a, appOf(newHung()), address)
	l, other := either(t, a, b)
	l.assign("run_1", "sleeps", 1)
	l.waitFor(has((*stepwellv1.Commands).GetParks))
	first := l.server
	first.grpc.Stop()
	l = other.link()
	if l.hello[0].SessionId != "ses_1" || l.residents()["run_1"] != 1 {
		t.Fatal(l.hello)
	}
	first.listen(first.address)
	other.grpc.Stop()
	first.link()
}

func TestAWorkerGoesToTheNextAddressWhenAnotherIsAwayFromTheStart(t *testing.T) {
	a, b, address := nodes(t)
	a.grpc.Stop()
	working(t, a, appOf(newHung()), address)
	b.link()
}

func TestAWorkerThatIsToldToDrainGoesToTheNextAddressFirst(t *testing.T) {
	a, b, address := nodes(t)
	working(t, a, appOf(newHung()), address)
	l, other := either(t, a, b)
	l.out <- &stepwellv1.ConnectResponse{Frame: &stepwellv1.ConnectResponse_Drain{Drain: &stepwellv1.Drain{Reason: "it stops"}}}
	next := other.link()
	if next.hello[0].SessionId != "ses_1" {
		t.Fatal(next.hello)
	}
	next.assign("run_1", "three", 1)
	next.waitFor(has((*stepwellv1.Commands).GetCompletes))
}

func TestWorkersSpreadOverTheAddresses(t *testing.T) {
	a, b, address := nodes(t)
	seen := map[*fakeServer]bool{}
	for range 100 { // by chance alone all would begin with the same one once in 2^99 times
		stop, _ := working(t, a, appOf(newHung()), address)
		l, _ := either(t, a, b)
		stop()
		if seen[l.server] = true; len(seen) == 2 {
			return
		}
	}
	t.Fatal("all began with the same address")
}

func TestAClientGoesToTheNextAddressWhenOneIsAway(t *testing.T) {
	asked := &services{}
	var servers []*grpc.Server
	var text string
	for range 2 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		stepwellv1.RegisterEventServiceServer(server, asked)
		go func() { _ = server.Serve(listener) }() // ends with Stop
		t.Cleanup(server.Stop)
		servers, text = append(servers, server), text+","+listener.Addr().String()
	}
	client, err := sw.NewClient(sw.Address(text[1:]))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	send := func() {
		t.Helper()
		if _, err := client.Send(context.Background(), sw.NewEvent{Name: "a/b"}); err != nil {
			t.Fatal(err)
		}
	}
	send()
	servers[0].Stop()
	send()
	send()
	if len(asked.sent) != 3 {
		t.Fatal(len(asked.sent))
	}
}

func TestWhatIsNoAddressIsRefused(t *testing.T) {
	for _, wrong := range []string{
		"here", "here:", ":7777", "here:0", "here:70000", "here:7777,", "here:7777,,there:7777", "a b:1", "ftp://here:1", "::1:7777",
		"here:7777/path", "https://here",
	} {
		if _, err := sw.NewClient(sw.Address(wrong)); !errors.Is(err, sw.ErrUsage) {
			t.Errorf("%q: %v", wrong, err)
		}
		if err := sw.NewApp("test").Serve(t.Context(), sw.Address(wrong)); !errors.Is(err, sw.ErrUsage) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	for _, right := range []string{"here:1", "[::1]:7777", "https://here:443 , http://there:7777", "10.0.0.1:7777,10.0.0.2:7777"} {
		client, err := sw.NewClient(sw.Address(right))
		if err != nil {
			t.Fatal(right, err)
		}
		_ = client.Close()
	}
}

func TestAnAddressThatFailedGoesToTheBack(t *testing.T) {
	tried := sw.Tried("a:1,b:1,c:1", 4)
	if tried[3] != tried[0] || tried[0] == tried[1] || tried[1] == tried[2] || tried[0] == tried[2] {
		t.Fatal(tried)
	}
	at := slices.Index(tried, "a:1")
	if at < 2 && tried[at+1] != "b:1" {
		t.Fatal(tried)
	}
}
