package metadatatest_test

import (
	"testing"

	"sluice/metadata"
	"sluice/metadata/metadatatest"
)

func TestStoreInMemory(t *testing.T) {
	metadatatest.TestStore(
		t, func(_ *testing.T, hook metadata.Hook) metadata.Store { return metadatatest.NewMem(hook) },
	)
}
