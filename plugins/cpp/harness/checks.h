// All checks, in the order in which they run.
#pragma once

#include "check.h"
#include "library.h"

namespace edge_lsla::harness {

void check_creators(Check& check, Library const& library);
void check_fields(Check& check, Library const& library);
void check_output_types(Check& check, Library const& library);
void check_output_shapes(Check& check, Library const& library);
void check_formats(Check& check, Library const& library);
void check_configure(Check& check, Library const& library);
void check_profiles(Check& check, Library const& library);
void check_serialization(Check& check, Library const& library);
void check_clones(Check& check, Library const& library);
void check_resources(Check& check, Library const& library);
void check_run_time_shapes(Check& check, Library const& library);
void check_without_driver(Check& check, Library const& library);
void check_attach(Check& check, Library const& library);
void check_launch(Check& check, Library const& library);
void check_launch_refusals(Check& check, Library const& library);
void check_threads(Check& check, Library const& library);

}  // namespace edge_lsla::harness
