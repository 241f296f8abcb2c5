//go:build !race

package keeper_test

const withRace = false
