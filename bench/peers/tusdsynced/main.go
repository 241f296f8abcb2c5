// Command tusdsynced is tusd with its uploads synced. It has the handler, the file store and the
// file locker of the tusd beside it, set up as tusd's own command does, and a store around the file
// store that makes an upload durable before its end is answered. tusd itself leaves that to the
// operating system. Partial uploads are not synced: only the upload that is concatenated of them
// is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/tus/tusd/v2/pkg/filelocker"
	"github.com/tus/tusd/v2/pkg/filestore"
	"github.com/tus/tusd/v2/pkg/handler"
	"golang.org/x/exp/slog"
)

func main() {
	host := flag.String("host", "127.0.0.1", "host")
	port := flag.String("port", "0", "port")
	dir := flag.String("upload-dir", "data", "folder")
	flag.Parse()
	if err := serve(*host, *port, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "tusdsynced:", err)
		os.Exit(1)
	}
}

func serve(host, port, dir string) error {
	if err := os.MkdirAll(dir, 0o775); err != nil {
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	files := filestore.New(dir)
	composer := handler.NewStoreComposer()
	files.UseIn(composer)
	filelocker.New(dir).UseIn(composer)
	s := store{files, folder}
	composer.UseCore(s)
	composer.UseConcater(s)
	composer.UseTerminater(s)
	composer.UseLengthDeferrer(s)
	composer.UseContentServer(s)
	h, err := handler.NewHandler(handler.Config{
		BasePath: "/files/", StoreComposer: composer,
		Logger:         slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError})),
		NetworkTimeout: time.Minute, AcquireLockTimeout: 20 * time.Second,
		GracefulRequestCompletionTimeout: 10 * time.Second,
	})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/files/", http.StripPrefix("/files/", h))
	mux.Handle("/files", http.StripPrefix("/files", h))
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return err
	}
	fmt.Printf("You can now upload files to: http://%s/files/\n", l.Addr())
	return (&http.Server{Handler: mux, ReadHeaderTimeout: time.Minute, IdleTimeout: time.Minute}).Serve(l)
}

// store wraps the uploads of a file store.
type store struct {
	filestore.FileStore
	folder *os.File
}

type upload struct {
	handler.Upload
	s store
}

func (s store) wrap(u handler.Upload, err error) (handler.Upload, error) {
	if err != nil {
		return nil, err
	}
	return upload{u, s}, nil
}

func (s store) NewUpload(ctx context.Context, info handler.FileInfo) (handler.Upload, error) {
	return s.wrap(s.FileStore.NewUpload(ctx, info))
}

func (s store) GetUpload(ctx context.Context, id string) (handler.Upload, error) {
	return s.wrap(s.FileStore.GetUpload(ctx, id))
}

// FinishUpload is called when the last byte is there.
func (u upload) FinishUpload(ctx context.Context) error {
	if err := u.Upload.FinishUpload(ctx); err != nil {
		return err
	}
	info, err := u.GetInfo(ctx)
	if err != nil || info.IsPartial {
		return err
	}
	return u.sync(info)
}

func (u upload) sync(info handler.FileInfo) error {
	var errs []error
	for _, key := range []string{filestore.StorageKeyPath, filestore.StorageKeyInfoPath} {
		f, err := os.Open(info.Storage[key])
		if err == nil {
			err = errors.Join(f.Sync(), f.Close()) // a sync covers the file, whoever wrote to it
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, u.s.folder.Sync())...)
}

// ConcatUploads joins partial uploads. No other call marks the end of the joined upload.
func (u upload) ConcatUploads(ctx context.Context, parts []handler.Upload) error {
	plain := make([]handler.Upload, len(parts))
	for i, p := range parts {
		plain[i] = p.(upload).Upload
	}
	if err := u.s.FileStore.AsConcatableUpload(u.Upload).ConcatUploads(ctx, plain); err != nil {
		return err
	}
	info, err := u.GetInfo(ctx)
	if err != nil {
		return err
	}
	return u.sync(info)
}

func (s store) AsConcatableUpload(u handler.Upload) handler.ConcatableUpload { return u.(upload) }

func (s store) AsTerminatableUpload(u handler.Upload) handler.TerminatableUpload {
	return s.FileStore.AsTerminatableUpload(u.(upload).Upload)
}

func (s store) AsLengthDeclarableUpload(u handler.Upload) handler.LengthDeclarableUpload {
	return s.FileStore.AsLengthDeclarableUpload(u.(upload).Upload)
}

func (s store) AsServableUpload(u handler.Upload) handler.ServableUpload {
	return s.FileStore.AsServableUpload(u.(upload).Upload)
}
