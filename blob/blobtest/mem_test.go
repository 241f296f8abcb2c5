package blobtest_test

import (
	"testing"

	"sluice/blob"
	"sluice/blob/blobtest"
)

func TestStoreInMemory(t *testing.T) {
	blobtest.TestStore(t, func(*testing.T) (blob.Store, func(string, int64)) {
		s := blobtest.NewMem()
		return s, s.Corrupt
	})
}
