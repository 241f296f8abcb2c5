package main

import (
	"context"
	"encoding/xml"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// versitygw speaks S3. Each request is signed with the SHA-256 of its payload, which is known
// beforehand. So the gateway verifies it.
type versitygw struct {
	p      *process
	url    string
	signer *v4.Signer
}

var s3Keys = aws.Credentials{AccessKeyID: "bench", SecretAccessKey: "bench-secret"}

const nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // SHA-256 of no bytes

func startVersitygw(ctx context.Context, bins, dir string) (server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	root := filepath.Join(dir, "data")
	if err := os.Mkdir(root, 0o700); err != nil {
		return nil, err
	}
	p, err := launch(dir, nil, filepath.Join(bins, "versitygw"),
		"--access", s3Keys.AccessKeyID, "--secret", s3Keys.SecretAccessKey, "--port", addr, "--quiet", "posix", root)
	if err != nil {
		return nil, err
	}
	if err := p.listens(ctx, addr); err != nil {
		return nil, closing(p, err)
	}
	s := &versitygw{p, "http://" + addr + "/bench", v4.NewSigner()}
	c := newClient(ctx)
	defer c.close()
	if _, err := s.ask(c, "PUT", s.url, "", http.StatusOK); err != nil {
		return nil, closing(p, err)
	}
	return s, nil
}

func (s *versitygw) process() *process { return s.p }

func (s *versitygw) sign(r *http.Request, sum string) error {
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Set("X-Amz-Content-Sha256", sum)
	return s.signer.SignHTTP(r.Context(), s3Keys, r, sum, "s3", "us-east-1", time.Now())
}

// ask sends a request without content of an item. Its own small body is not signed.
func (s *versitygw) ask(c *client, method, url, body string, want int) ([]byte, error) {
	r, err := http.NewRequestWithContext(c.ctx, method, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	sum := "UNSIGNED-PAYLOAD"
	if body == "" {
		sum = nothing
	}
	if err := s.sign(r, sum); err != nil {
		return nil, err
	}
	_, b, err := c.answer(r, want)
	return b, err
}

func (s *versitygw) put(c *client, url string, it item, off, n int64, sum string) (etag string, err error) {
	resp, _, err := c.send(
		"PUT", url, nil, it, off, n, http.StatusOK, func(r *http.Request) error { return s.sign(r, sum) },
	)
	if err != nil {
		return "", err
	}
	return resp.Header.Get("ETag"), nil
}

type completedPart struct {
	PartNumber int
	ETag       string
}

// store is a multipart upload, or one PUT for an item of one chunk.
func (s *versitygw) store(c *client, it item, inflight int) (string, error) {
	if it.chunks() == 1 {
		return s.create(c, it)
	}
	b, err := s.ask(c, "POST", s.url+"/"+it.name+"?uploads=", "", http.StatusOK)
	if err != nil {
		return "", err
	}
	var begun struct{ UploadId string }
	if err := xml.Unmarshal(b, &begun); err != nil {
		return "", err
	}
	parts := make([]completedPart, it.chunks())
	err = parallel(it.chunks(), inflight, func(i int) error {
		off, n := it.bounds(i)
		etag, err := s.put(
			c, fmt.Sprintf("%s/%s?partNumber=%d&uploadId=%s", s.url, it.name, i+1, begun.UploadId), it, off, n,
			it.parts[i],
		)
		parts[i] = completedPart{i + 1, etag}
		return err
	})
	if err != nil {
		return "", err
	}
	done, err := xml.Marshal(struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Part    []completedPart
	}{Part: parts})
	if err != nil {
		return "", err
	}
	if b, err = s.ask(
		c, "POST", s.url+"/"+it.name+"?uploadId="+begun.UploadId, string(done), http.StatusOK,
	); err != nil {
		return "", err
	}
	if !strings.Contains(string(b), "<CompleteMultipartUploadResult") { // S3 may answer 200 with an error inside
		return "", fmt.Errorf("the multipart upload did not complete: %s", b)
	}
	return it.name, nil
}

func (s *versitygw) create(c *client, it item) (string, error) {
	_, err := s.put(c, s.url+"/"+it.name, it, 0, it.size, it.sum)
	return it.name, err
}

func (s *versitygw) fetch(ref string) (*http.Request, error) {
	r, err := http.NewRequest("GET", s.url+"/"+ref, nil)
	if err == nil {
		err = s.sign(r, nothing)
	}
	return r, err
}
