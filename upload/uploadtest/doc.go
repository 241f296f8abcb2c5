// Package uploadtest has the conformance suites that every content store and every catalog store passes, and stores in
// memory for the tests of what is built on them. It owns no test of the upload service itself.
package uploadtest
