package spec

import (
	"fmt"
	"reflect"
	"strconv"
	"time"
)

// SetDefaults fills a struct, given by pointer, from its default tags.
func SetDefaults(into any) { setDefaults(reflect.ValueOf(into).Elem()) }

// setDefaults fills a struct from its default tags, nested structs included;
// what is behind a pointer stays absent.
func setDefaults(v reflect.Value) {
	for i := range v.NumField() {
		f, fv := v.Type().Field(i), v.Field(i)
		if fv.Kind() == reflect.Struct {
			setDefaults(fv)
			continue
		}
		def, ok := f.Tag.Lookup("default")
		if !ok {
			continue
		}
		switch {
		case fv.Type() == durationType:
			x, err := time.ParseDuration(def)
			mustTag(f, err)
			fv.SetInt(int64(x))
		case fv.Kind() == reflect.String:
			fv.SetString(def)
		case fv.Kind() == reflect.Bool:
			fv.SetBool(def == "true")
		case fv.Kind() == reflect.Float64:
			x, err := strconv.ParseFloat(def, 64)
			mustTag(f, err)
			fv.SetFloat(x)
		default:
			x, err := strconv.ParseUint(def, 10, 64)
			mustTag(f, err)
			fv.SetUint(x)
		}
	}
}

// mustTag panics on a tag that is wrong in the source; a test sets the defaults
// of every kind.
func mustTag(f reflect.StructField, err error) {
	if err != nil {
		panic(fmt.Sprintf("default of %s: %v", f.Name, err))
	}
}
