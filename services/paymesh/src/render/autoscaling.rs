//! `paymesh render autoscaling`: the scaling policies for Application Auto Scaling of AWS, as JSON of Terraform, for whoever runs edges there without Kubernetes.

use paymesh_topology::{Metric, Reactive, Scaling, Topology};
use serde_json::{Map, Value, json};

use crate::{
    args::{AutoscalingArgs, Setting},
    exit::{Exit, unusable},
    output::say_json,
};

/// A part of a resource's id that is a name.
fn named<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let part = parts.next()?;
    (!part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))).then_some(part)
}

/// Seconds of one look at a figure: CloudWatch's shortest of AWS' own.
const PERIOD_SECONDS: u32 = 60;

/// Runs the command.
pub(crate) fn run(setting: &Setting, args: &AutoscalingArgs) -> anyhow::Result<Exit> {
    let topology = Topology::load(&setting.config).map_err(unusable)?;
    let scaling = Scaling::load(&setting.config, &topology).map_err(unusable)?;
    let region = topology.region(&args.region).ok_or_else(|| {
        let known = topology.regions().map(|region| region.name.as_str()).collect::<Vec<_>>().join(", ");
        unusable(format!("--region: there is no region `{}`; the regions are {known}", args.region))
    })?;
    let mut parts = args.resource_id.split('/');
    let (Some("service"), Some(cluster), Some(service), None) = (parts.next(), named(&mut parts), named(&mut parts), parts.next()) else {
        return Err(unusable(format!("--resource-id: must be service/CLUSTER/SERVICE, as ECS calls it, not `{}`", args.resource_id)));
    };
    say_json(&render(&scaling, scaling.time_zone(&region.name), &args.resource_id, cluster, service))?;
    Ok(Exit::Good)
}

fn render(scaling: &Scaling, time_zone: &str, resource_id: &str, cluster: &str, service: &str) -> Value {
    let target = "${aws_appautoscaling_target.edge.service_namespace}";
    let of_target = json!({
        "service_namespace": target,
        "resource_id": "${aws_appautoscaling_target.edge.resource_id}",
        "scalable_dimension": "${aws_appautoscaling_target.edge.scalable_dimension}",
    });
    let with = |fields: Value| {
        let mut all = of_target.clone();
        if let (Value::Object(all), Value::Object(fields)) = (&mut all, fields) {
            all.extend(fields);
        }
        all
    };
    let mut scheduled = Map::new();
    for entry in &scaling.scheduled {
        // What it has no word for is target_capacity.
        let action = json!({
            "name": entry.name,
            "schedule": entry.schedule.to_aws(),
            "timezone": time_zone,
            "scalable_target_action": {"min_capacity": entry.min, "max_capacity": entry.max},
        });
        scheduled.insert(entry.name.clone(), with(action));
    }
    let (mut policies, mut alarms) = (Map::new(), Map::new());
    for (word, sign, rules) in [("up", 1, &scaling.scale_up), ("down", -1, &scaling.scale_down)] {
        for (index, rule) in rules.iter().enumerate() {
            let name = format!("{word}_{index}");
            policies.insert(name.clone(), with(step(&name, sign, rule)));
            alarms.insert(name.clone(), alarm(&name, sign, rule, cluster, service));
        }
    }
    json!({"resource": {
        "aws_appautoscaling_target": {"edge": {
            "service_namespace": "ecs",
            "resource_id": resource_id,
            "scalable_dimension": "ecs:service:DesiredCount",
            "min_capacity": scaling.autoscaler.min,
            "max_capacity": scaling.autoscaler.max,
            // What is scheduled changes them, and an apply at another hour is not to change them back.
            "lifecycle": {"ignore_changes": ["min_capacity", "max_capacity"]},
        }},
        "aws_appautoscaling_scheduled_action": scheduled,
        "aws_appautoscaling_policy": policies,
        "aws_cloudwatch_metric_alarm": alarms,
    }})
}

fn step(name: &str, sign: i64, rule: &Reactive) -> Value {
    let bound = if sign > 0 { "metric_interval_lower_bound" } else { "metric_interval_upper_bound" };
    json!({
        "name": name,
        "policy_type": "StepScaling",
        "step_scaling_policy_configuration": {
            "adjustment_type": "PercentChangeInCapacity",
            "min_adjustment_magnitude": 1,
            "cooldown": rule.duration_seconds,
            "metric_aggregation_type": "Average",
            "step_adjustment": [{bound: "0", "scaling_adjustment": sign * i64::from(rule.percent)}],
        },
    })
}

fn alarm(name: &str, sign: i64, rule: &Reactive, cluster: &str, service: &str) -> Value {
    // The queue is the mesh's own figure, and of all edges together; it is whoever ships it that gives it this name.
    let (namespace, statistic) = match rule.metric {
        Metric::Cpu => ("AWS/ECS", "Average"),
        Metric::QueueLength => ("paymesh", "Sum"),
    };
    json!({
        "alarm_name": format!("{service}-{}", name.replace('_', "-")),
        "namespace": namespace,
        "metric_name": rule.metric.as_str(),
        "dimensions": {"ClusterName": cluster, "ServiceName": service},
        "statistic": statistic,
        "comparison_operator": if sign > 0 { "GreaterThanThreshold" } else { "LessThanThreshold" },
        "threshold": rule.threshold,
        "period": PERIOD_SECONDS,
        "evaluation_periods": rule.duration_seconds.div_ceil(PERIOD_SECONDS),
        "alarm_actions": [format!("${{aws_appautoscaling_policy.{name}.arn}}")],
    })
}
