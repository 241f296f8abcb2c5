// Command floors serves the two floors that Sluice is measured against, and the static file server
// of the read scenarios. Each does the least that an upload with the same promises can do (read,
// hash, write, sync), and nothing that a product needs beside it: no ids, no resuming after a
// crash, no rights, one record. A system that is faster than its floor is measured wrong or
// promises less.
//
//	bare    a file per upload: buffered writes, then one fsync of the file and one of its folder
//	direct  the same with direct I/O: 1 MiB is hashed and written while the next is read
//	pack    one shared file for all (direct.go, pack.go): a group of appends, one sync;
//	        then one synced record in Pebble
//
// The wire: PUT /NAME?off=N&total=T, body: the bytes from N on, in order. The request with the last
// byte also has sha256=HEX. It is answered when all is durable (200; 422 if the digest is another).
// The others are answered when their bytes are written (204). GET /NAME reads.
package main

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

// store is what a kind of floor does with an upload.
type store interface {
	begin(name string, total int64) (upload, error)
	read(w http.ResponseWriter, r *http.Request, name string)
}

// upload takes the bytes of one name, in order, one call at a time.
type upload interface {
	write(body io.Reader, n int64) error
	end() (sha256 []byte, err error) // durable when it returns
}

func main() {
	kind := flag.String("kind", "bare", "bare, direct or pack")
	dir := flag.String("dir", "", "the folder for the content")
	flag.Parse()
	if err := serve(*kind, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "floors:", err)
		os.Exit(1)
	}
}

func serve(kind, dir string) error {
	var s store
	var err error
	switch kind {
	case "bare", "direct":
		s, err = newFiles(dir, kind == "direct")
	case "pack":
		s, err = newPack(dir)
	default:
		return fmt.Errorf("no floor is called %q: bare, direct or pack", kind)
	}
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "listening on http://%s\n", l.Addr())
	h := &handler{store: s, running: map[string]upload{}}
	return (&http.Server{Handler: h, ReadHeaderTimeout: time.Minute}).Serve(l)
}

// handler speaks the protocol. It keeps the uploads that have not ended.
type handler struct {
	store   store
	mu      sync.Mutex
	running map[string]upload
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Path[1:]
	if r.Method != http.MethodPut {
		h.store.read(w, r, name)
		return
	}
	q := r.URL.Query()
	off, err1 := strconv.ParseInt(q.Get("off"), 10, 64)
	total, err2 := strconv.ParseInt(q.Get("total"), 10, 64)
	if err := errors.Join(err1, err2); err != nil || r.ContentLength < 0 || off+r.ContentLength > total {
		http.Error(w, "off, total and Content-Length must fit each other", http.StatusBadRequest)
		return
	}
	last := off+r.ContentLength == total
	up, err := h.take(name, off, total, last)
	if err == nil {
		err = up.write(r.Body, r.ContentLength)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if !last {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	sum, err := up.end()
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case hex.EncodeToString(sum) != q.Get("sha256"):
		http.Error(w, "the SHA-256 is another", http.StatusUnprocessableEntity)
	default:
		w.WriteHeader(http.StatusOK)
	}
}

// take gives the upload of a name. The first request of a name gets a new one, and the last one
// removes it.
func (h *handler) take(name string, off, total int64, last bool) (upload, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	up := h.running[name]
	if off == 0 {
		var err error
		if up, err = h.store.begin(name, total); err != nil {
			return nil, err
		}
		h.running[name] = up
	}
	if up == nil {
		return nil, errors.New("the upload's first bytes come first")
	}
	if last {
		delete(h.running, name)
	}
	return up, nil
}
