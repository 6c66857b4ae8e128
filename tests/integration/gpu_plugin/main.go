// A Nomad device plugin that pretends: it shows the GPUs its configuration lists, as the vendor's own plugin would.
// For tests only. Attributes and their units are those of nomad-device-nvidia (`fingerprint.go`).
package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	log "github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/device"
	"github.com/hashicorp/nomad/plugins/shared/hclspec"
	"github.com/hashicorp/nomad/plugins/shared/structs"
)

const (
	vendor     = "nvidia"
	deviceType = "gpu"
)

// group is one `gpu { … }` block: `count` devices of one model.
type group struct {
	Name          string `codec:"name"`
	Count         int64  `codec:"count"`
	MemoryMiB     int64  `codec:"memory_mib"`
	DriverVersion string `codec:"driver_version"`
	Healthy       bool   `codec:"healthy"`
}

// ids are made of the place in the configuration, so that a restarted plugin finds its devices again.
func (g group) ids(index int) []string {
	ids := make([]string, g.Count)
	for i := range ids {
		ids[i] = fmt.Sprintf("GPU-00000000-0000-4000-8000-%06d%06d", index, i)
	}
	return ids
}

func (g group) attributes() map[string]*structs.Attribute {
	return map[string]*structs.Attribute{
		"memory":           structs.NewIntAttribute(g.MemoryMiB, structs.UnitMiB),
		"power":            structs.NewIntAttribute(400, structs.UnitW),
		"bar1":             structs.NewIntAttribute(2*g.MemoryMiB, structs.UnitMiB),
		"cores_clock":      structs.NewIntAttribute(1410, structs.UnitMHz),
		"memory_clock":     structs.NewIntAttribute(1593, structs.UnitMHz),
		"pci_bandwidth":    structs.NewIntAttribute(31504, structs.UnitMBPerS),
		"driver_version":   structs.NewStringAttribute(g.DriverVersion),
		"display_state":    structs.NewStringAttribute("Disabled"),
		"persistence_mode": structs.NewStringAttribute("Enabled"),
	}
}

func (g group) devices(index int) []*device.Device {
	devices := make([]*device.Device, 0, g.Count)
	for i, id := range g.ids(index) {
		devices = append(devices, &device.Device{
			ID:         id,
			Healthy:    g.Healthy,
			HwLocality: &device.DeviceLocality{PciBusID: fmt.Sprintf("00000000:%02X:%02X.0", index+1, i)},
		})
	}
	return devices
}

type plugin struct {
	groups []group
}

// PluginInfo names the plugin: its executable must have the same name as the configuration's `plugin` block.
func (*plugin) PluginInfo() (*base.PluginInfoResponse, error) {
	return &base.PluginInfoResponse{
		Type:              base.PluginTypeDevice,
		PluginApiVersions: []string{device.ApiVersion010},
		PluginVersion:     "v0.1.0",
		Name:              "fake-nvidia-gpu",
	}, nil
}

// ConfigSchema is the HCL that the agent's `plugin` block may hold.
func (*plugin) ConfigSchema() (*hclspec.Spec, error) {
	return hclspec.NewObject(map[string]*hclspec.Spec{
		"gpu": hclspec.NewBlockList("gpu", hclspec.NewObject(map[string]*hclspec.Spec{
			"name":           hclspec.NewAttr("name", "string", true),
			"count":          hclspec.NewDefault(hclspec.NewAttr("count", "number", false), hclspec.NewLiteral("1")),
			"memory_mib":     hclspec.NewAttr("memory_mib", "number", true),
			"driver_version": hclspec.NewAttr("driver_version", "string", true),
			"healthy":        hclspec.NewDefault(hclspec.NewAttr("healthy", "bool", false), hclspec.NewLiteral("true")),
		})),
	}), nil
}

// SetConfig takes what the `plugin` block holds.
func (p *plugin) SetConfig(config *base.Config) error {
	var decoded struct {
		Groups []group `codec:"gpu"`
	}
	if len(config.PluginConfig) != 0 {
		if err := base.MsgPackDecode(config.PluginConfig, &decoded); err != nil {
			return err
		}
	}
	p.groups = decoded.Groups
	return nil
}

// Fingerprint tells the devices once; they never change.
func (p *plugin) Fingerprint(ctx context.Context) (<-chan *device.FingerprintResponse, error) {
	answers := make(chan *device.FingerprintResponse, 1)
	var groups []*device.DeviceGroup
	for index, g := range p.groups {
		groups = append(groups, &device.DeviceGroup{
			Vendor:     vendor,
			Type:       deviceType,
			Name:       g.Name,
			Devices:    g.devices(index),
			Attributes: g.attributes(),
		})
	}
	answers <- device.NewFingerprint(groups...)
	go func() {
		<-ctx.Done()
		close(answers)
	}()
	return answers, nil
}

// Reserve gives a task the one thing that the vendor's plugin gives: the names of its devices.
func (p *plugin) Reserve(ids []string) (*device.ContainerReservation, error) {
	known := map[string]bool{}
	for index, g := range p.groups {
		for _, id := range g.ids(index) {
			known[id] = true
		}
	}
	for _, id := range ids {
		if !known[id] {
			return nil, fmt.Errorf("unknown device %q", id)
		}
	}
	return &device.ContainerReservation{Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(ids, ",")}}, nil
}

// Stats says of every device that half of its memory is in use.
func (p *plugin) Stats(ctx context.Context, interval time.Duration) (<-chan *device.StatsResponse, error) {
	answers := make(chan *device.StatsResponse)
	go func() {
		defer close(answers)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case answers <- p.stats(time.Now()):
			case <-ctx.Done():
				return
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return answers, nil
}

func (p *plugin) stats(now time.Time) *device.StatsResponse {
	response := &device.StatsResponse{}
	for index, g := range p.groups {
		used, total := g.MemoryMiB/2, g.MemoryMiB
		memory := &structs.StatValue{
			IntNumeratorVal:   &used,
			IntDenominatorVal: &total,
			Unit:              structs.UnitMiB,
			Desc:              "Memory state",
		}
		each := map[string]*device.DeviceStats{}
		for _, id := range g.ids(index) {
			each[id] = &device.DeviceStats{
				Summary:   memory,
				Stats:     &structs.StatObject{Attributes: map[string]*structs.StatValue{"Memory state": memory}},
				Timestamp: now,
			}
		}
		response.Groups = append(response.Groups, &device.DeviceGroupStats{
			Vendor: vendor, Type: deviceType, Name: g.Name, InstanceStats: each,
		})
	}
	return response
}

func main() {
	device.Serve(&plugin{}, log.New(&log.LoggerOptions{Level: log.Info, JSONFormat: true}))
}
