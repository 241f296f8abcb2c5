package main

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

func TestALinkCarriesWhatItIsGivenBothWays(t *testing.T) {
	for _, s := range []linkShape{{1e9, 2 * time.Millisecond, 0}, {1e10, 20 * time.Millisecond, 5e9}, {1e9, 0, 0}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		echoed := make(chan struct{})
		go func() {
			defer close(echoed)
			for range 2 {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}
		}()
		k, err := newLink(s, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte("all of it\n"), 123_457)
		for range 2 {
			c, err := net.Dial("tcp", k.addr())
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				_, _ = c.Write(want)
				_ = c.(*net.TCPConn).CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes of %d came back: %v", s, len(got), len(want), err)
			}
			_ = c.Close()
		}
		k.close()
		_ = l.Close()
		<-echoed
	}
}
