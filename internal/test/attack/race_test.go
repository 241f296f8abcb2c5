//go:build race

package attack

const withRace = true
