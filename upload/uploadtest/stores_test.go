package uploadtest

import (
	"testing"

	"sluice/catalog"
	"sluice/catalog/catalogtest"
)

func TestCatalogThatEndsSessions(t *testing.T) {
	catalogtest.TestStore(t, func(*testing.T) catalog.Store { return newStores(nil).Catalog })
}

func TestStoresInMemoryCommitJointly(t *testing.T) {
	TestJoint(t, func(*testing.T) Stores { return newStores(nil) })
}
