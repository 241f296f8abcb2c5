package catalogtest

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"sluice/catalog"
)

// testRows stores any row of each table and reads it again, alone and in a scan.
func testRows(t *testing.T, s catalog.Store) {
	rowsOf(t, s, "capsules", catalog.Capsules)
	rowsOf(t, s, "roles", catalog.Roles)
	rowsOf(t, s, "memories", catalog.Memories)
	rowsOf(t, s, "order", catalog.Order)
	rowsOf(t, s, "digests", catalog.Digests)
	rowsOf(t, s, "contents", catalog.Contents)
	rowsOf(t, s, "places", catalog.Places)
	rowsOf(t, s, "reservations", catalog.Reservations)
	rowsOf(t, s, "usages", catalog.Usages)
	rowsOf(t, s, "idems", catalog.Idems)
	rowsOf(t, s, "outcomes", catalog.Outcomes)
	rowsOf(t, s, "events", catalog.Events)
	rowsOf(t, s, "principals", catalog.Principals)
	rowsOf(t, s, "tokens", catalog.Tokens)
	rowsOf(t, s, "states", catalog.Checkpoints)
	rowsOf(t, s, "dues", catalog.Dues)
	rowsOf(t, s, "token ids", catalog.TokenIDs)
	rowsOf(t, s, "tokens of principals", catalog.PrincipalTokens)
	rowsOf(t, s, "identities", catalog.Identities)
}

func rowsOf[K catalog.Key, V any](t *testing.T, s catalog.Store, name string, table catalog.Table[K, V]) {
	t.Run(name, func(t *testing.T) {
		rapid.Check(t, func(rt *rapid.T) {
			want := AnyRow[V](rt)
			key := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(rt, "key")
			ok(rt, s.Update(context.Background(), func(tx catalog.Tx) error { return tx.Put(table.ID, key, want) }))
			ok(rt, s.View(context.Background(), func(r catalog.Reader) error {
				got, err := r.Get(table.ID, key)
				if err != nil {
					return err
				}
				if diff := cmp.Diff(want, got.(V), cmpopts.EquateEmpty()); diff != "" {
					rt.Fatalf("(-stored +read):\n%s", diff)
				}
				for got, err := range r.Scan(table.ID, key, append(key[:len(key):len(key)], 0), false) {
					if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
						rt.Fatalf("in a scan: %v (-stored +read):\n%s", err, diff)
					}
				}
				return nil
			}))
		})
	})
}

// AnyRow draws a row with anything in all of its fields, including fields that are added later.
func AnyRow[V any](t *rapid.T) (row V) {
	fill(t, reflect.ValueOf(&row).Elem())
	return row
}

func fill(t *rapid.T, v reflect.Value) {
	if v.Type() == reflect.TypeFor[time.Time]() {
		if ms := rapid.Int64Range(-1e13, 1e14).Draw(t, "ms"); rapid.IntRange(0, 3).Draw(t, "time") > 0 {
			v.Set(reflect.ValueOf(time.UnixMilli(ms).UTC()))
		}
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(rapid.OneOf(rapid.String(), rapid.Just("\xff\x00")).Draw(t, "string"))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.Int64:
		v.SetInt(rapid.Int64().Draw(t, "int"))
	case reflect.Uint8:
		v.SetUint(uint64(rapid.Byte().Draw(t, "byte")))
	case reflect.Uint32:
		v.SetUint(uint64(rapid.Uint32().Draw(t, "uint32")))
	case reflect.Uint64:
		v.SetUint(rapid.Uint64().Draw(t, "uint64"))
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.Pointer:
		if rapid.Bool().Draw(t, "there") {
			v.Set(reflect.New(v.Type().Elem()))
			fill(t, v.Elem())
		}
	case reflect.Slice:
		n := rapid.IntRange(0, 4).Draw(t, "len")
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(t, v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i))
		}
	default:
		t.Fatalf("a field of type %v has no generator", v.Type())
	}
}

// ok is check within a property.
func ok(t *rapid.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
