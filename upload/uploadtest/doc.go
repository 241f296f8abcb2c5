// Package uploadtest has the suite that every pair of a session store and a catalog store passes which
// commit jointly, and such stores in memory for the tests of what is built on them. It owns no test of
// the upload service itself.
package uploadtest
