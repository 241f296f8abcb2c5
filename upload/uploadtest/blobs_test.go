package uploadtest_test

import (
	"testing"

	"sluice/upload"
	"sluice/upload/uploadtest"
)

func TestBlobsInMemory(t *testing.T) {
	uploadtest.TestBlobs(t, func(*testing.T) (upload.Blobs, func(string, int64)) {
		s := uploadtest.NewBlobs()
		return s, s.Corrupt
	})
}
